"""Scores the same rows with Picket's trees and with other tools, in turn, on one thread, and prints how long each took.

All models have 200 trees of 63 leaves and were learned from the same table; those of the peers are LightGBM's. LightGBM and the
compiled trees are called through C, so that no interpreter is in what is measured; ONNX Runtime is called from Python, which
costs it some microseconds a call: its batch figure says what its trees take. Each tool's median of all repeats counts.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "train"))
from peers import BOOSTING, LEAF_ROWS, LEAVES, RATE, TREES, generated, read, write  # noqa: E402

ROWS_MAX, ONNX_BATCHES = 20_000, 5
# Goals of our time over theirs: single row, batch.
GOALS = {"lightgbm": (0.2, 0.2), "tl2cgen": (0.67, None), "onnxruntime": (0.2, None)}
SINGLE_ROW_GOAL_NS = 1000


def prepare(folder, train, test):
    """Learns all models; for each peer the command that measures it, or why there is none."""
    import lightgbm
    import numpy as np

    x, y = train
    settings = {"objective": "binary", "num_leaves": LEAVES, "learning_rate": RATE, "max_bin": 255,
                "min_data_in_leaf": LEAF_ROWS, "verbose": -1}
    weights = np.where(y == 1, len(y) / 2 / y.sum(), len(y) / 2 / (len(y) - y.sum()))
    booster = lightgbm.train(settings, lightgbm.Dataset(x, y, weight=weights), TREES)
    path = {name: os.path.join(folder, name) for name in ("lightgbm.txt", "trees.so", "lightgbm.onnx", "peer")}
    booster.save_model(path["lightgbm.txt"])
    library = os.path.join(os.path.dirname(lightgbm.__file__), "lib", "lib_lightgbm.so")
    commands = {"lightgbm": [path["peer"], "lightgbm", library, path["lightgbm.txt"], test]}

    def compiled():
        import tl2cgen
        import treelite

        model = treelite.frontend.load_lightgbm_model(path["lightgbm.txt"])
        tl2cgen.export_lib(model, toolchain="gcc", libpath=path["trees.so"], params={"parallel_comp": 8})
        return [path["peer"], "compiled", path["trees.so"], "-", test]

    def onnx():
        import onnxmltools
        import onnxruntime  # noqa: F401
        from onnxmltools.convert.common.data_types import FloatTensorType

        kind = [("input", FloatTensorType([None, x.shape[1]]))]
        with open(path["lightgbm.onnx"], "wb") as file:
            file.write(onnxmltools.convert_lightgbm(booster, initial_types=kind, zipmap=False).SerializeToString())
        return [sys.executable, os.path.abspath(__file__), "--onnx", path["lightgbm.onnx"], test]

    for name, make in (("tl2cgen", compiled), ("onnxruntime", onnx)):
        try:
            commands[name] = make()
        except Exception as error:  # Whatever a peer fails with: it is reported, and the others are measured.
            print(f"missing peer: {name}: {type(error).__name__}: {str(error)[:500]}", file=sys.stderr)
    return commands, os.path.getsize(path["lightgbm.txt"])


def onnx(model, test):
    """ONNX Runtime from Python, one thread."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    rows = np.ascontiguousarray(read(test)[0][:ROWS_MAX])
    name, outputs = session.get_inputs()[0].name, [session.get_outputs()[1].name]
    times = []
    for row in range(len(rows)):
        given = {name: rows[row:row + 1]}
        begin = time.perf_counter_ns()
        session.run(outputs, given)
        times.append(time.perf_counter_ns() - begin)
    batches = []
    for _ in range(ONNX_BATCHES):
        begin = time.perf_counter_ns()
        scores = session.run(outputs, {name: rows})[0]
        batches.append((time.perf_counter_ns() - begin) / len(rows))
    times.sort()
    return {"p50_ns": times[len(times) // 2], "p99_ns": times[len(times) * 99 // 100], "batch_ns": min(batches),
            "mean_score": float(np.mean(scores[:, 1]))}


def run(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900)
        return json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError, OSError) as error:
        print(f"failed: {' '.join(command)}: {error} {getattr(error, 'stderr', '') or ''}"[:2000], file=sys.stderr)
        return None


def middle(results):
    results = [result for result in results if result]
    return {key: statistics.median(result[key] for result in results) for key in results[0]} if results else None


def judge(options, name, ours, theirs, peer, unit, goal):
    ratio = ours / theirs
    line = {"name": name, "ours": ours, "peer": peer, "theirs": theirs, "unit": unit, "ratio": round(ratio, 4),
            "goal": f"≤ {goal}", "met": ratio <= goal}
    if options.json:
        print(json.dumps(line, ensure_ascii=False), flush=True)


def main():
    if sys.argv[1:2] == ["--onnx"]:
        print(json.dumps(onnx(*sys.argv[2:])))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", required=True)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    table = sys.stderr if options.json else sys.stdout
    rows = 20_000 if options.quick else 200_000
    options.repeats = 1 if options.quick else options.repeats
    train, test, model = (os.path.join(options.folder, name) for name in ("train.table", "test.table", "picket.model"))
    learned = generated(rows, 40, 1)
    write(train, learned)
    write(test, generated(ROWS_MAX, 40, 2))
    ours = os.path.join(options.folder, "target", "release", "learn-comparison")
    subprocess.run([ours, train, test, json.dumps(BOOSTING), "2", "1", model], check=True,
                   stdout=subprocess.DEVNULL)
    commands, text_bytes = prepare(options.folder, learned, test)
    commands = {"picket": [ours, "score", model, test]} | commands
    results = {name: [] for name in commands}
    for _ in range(options.repeats):
        for name, command in commands.items():
            results[name].append(run(command))
    results = {name: middle(of_tool) for name, of_tool in results.items()}
    title = f"{TREES} trees of {LEAVES} leaves, generated {rows:,} × 40, one thread"
    print(f"\n{title}", file=table)
    print(f"{'':<14}{'p50 ns':>10}{'p99 ns':>10}{'batch ns a row':>16}{'mean score':>12}", file=table)
    for name, result in results.items():
        if result:
            print(f"{name:<14}{result['p50_ns']:>10.0f}{result['p99_ns']:>10.0f}{result['batch_ns']:>16.0f}"
                  f"{result['mean_score']:>12.4f}", file=table)
        else:
            print(f"{name:<14}  failed", file=table)
    print(f"model: picket {os.path.getsize(model):,} bytes, lightgbm text {text_bytes:,}", file=table)
    ours = results["picket"]
    if not ours:
        sys.exit(1)
    judge(options, "score a row, p50", ours["p50_ns"], SINGLE_ROW_GOAL_NS, "the goal", "ns", 1.0)
    for name, (single, batch) in GOALS.items():
        theirs = results.get(name)
        if theirs:
            judge(options, "score a row, p50", ours["p50_ns"], theirs["p50_ns"], name, "ns", single)
            if batch:
                judge(options, "score a batch, a row", ours["batch_ns"], theirs["batch_ns"], name, "ns", batch)
    judge(options, "model file", os.path.getsize(model), text_bytes, "lightgbm text", "bytes", 0.1)


if __name__ == "__main__":
    main()
