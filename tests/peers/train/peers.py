"""Fits the same tables with Picket's trees and with other tools, in turn, and prints what each took and gave.

Every fit runs in a process of its own. Times are those of the fit with the cutting into bins, and not of reading the table.
Per tool and number of threads the best of all repeats counts; processor time is printed beside the wall's, because on a
machine that is shared only the former means much. All get the same row weights: both classes weigh the same.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from importlib import metadata

TREES, LEAVES, LEAF_ROWS, RATE, FOREST_TREES = 200, 63, 20, 0.1, 100
SECONDS_MAX = 1800
BOOSTING = {"algorithm": "gradient_boosting", "trees": TREES, "leaves_max": LEAVES, "depth_max": 40, "learning_rate": RATE,
            "leaf_rows_min": LEAF_ROWS, "l2": 0.0, "early_stopping_rounds": 0}
# Each peer: distribution, kind, goal of our time over its time.
PEERS = {
    "lightgbm": ("lightgbm", "boosting", 1.0),
    "lightgbm row-wise": ("lightgbm", "boosting", 1.0),
    "lightgbm quantized": ("lightgbm", "boosting", 1.0),
    "xgboost hist": ("xgboost-cpu", "boosting", 0.5),
    "scikit-learn hgb": ("scikit-learn", "boosting", 0.5),
    "scikit-learn forest": ("scikit-learn", "forest", 0.1),
}


def generated(rows, features, seed):
    """Counts, categories, heavy tails and missing values; the label hangs on some of them, alone and in pairs."""
    import numpy as np

    random = np.random.default_rng(seed)
    x = random.standard_normal((rows, features)).astype(np.float32)
    x[:, 1] = np.exp(x[:, 1])
    x[:, 3] = random.poisson(3, rows)
    x[:, 5] = random.integers(0, 2, rows)
    x[:, 8] = random.geometric(0.05, rows)
    x[:, 9] = random.integers(0, 12, rows)
    odds = (1.2 * np.sin(2 * x[:, 0]) + 0.8 * x[:, 1] * (x[:, 5] > 0) - 0.5 * np.abs(x[:, 2]) + 0.3 * x[:, 3]
            + 0.6 * x[:, 4] * x[:, 6] + np.where(x[:, 7] > 1, 1.5, 0) - 0.02 * x[:, 8]
            + 0.7 * ((x[:, 9] == 3) | (x[:, 9] == 7)) + 0.2 * x[:, 10:20].sum(1) - 4.0)
    y = (random.random(rows) < 1 / (1 + np.exp(-odds))).astype(np.uint8)
    for feature in (2, 8, 12, 30):
        x[random.random(rows) < 0.1, feature] = np.nan
    return x, y


def real(folder, name, dropped):
    """A table as numbers. No official test part is stored beside it: rows that are alike stay together, three tenths of
    those groups are the test part. Categories are numbered in the order of the training part; new ones are missing."""
    import csv
    import hashlib

    import numpy as np

    text = subprocess.run(["zstd", "-dc", os.path.join(folder, name)], check=True, capture_output=True, text=True).stdout
    rows = list(csv.DictReader(text.splitlines()))
    columns = [column for column in rows[0] if column not in dropped and column != "label"]
    in_test = [hashlib.sha256("\0".join(row[column] for column in columns).encode()).digest()[0] < 77 for row in rows]
    x = np.full((len(rows), len(columns)), np.nan, np.float32)
    for place, column in enumerate(columns):
        codes = {}
        for index, row in enumerate(rows):
            try:
                value = float(row[column])
            except ValueError:
                value = codes.get(row[column]) if in_test[index] else codes.setdefault(row[column], float(len(codes)))
            if value is not None and np.isfinite(value):
                x[index, place] = value
    y, in_test = np.array([int(row["label"]) for row in rows], np.uint8), np.array(in_test)
    return (x[~in_test], y[~in_test]), (x[in_test], y[in_test])


def write(path, table):
    import numpy as np

    x, y = table
    with open(path, "wb") as file:
        file.write(np.array(x.shape, "<u4").tobytes() + y.tobytes() + np.ascontiguousarray(x, "<f4").tobytes())


def read(path):
    import numpy as np

    data = open(path, "rb").read()
    rows, features = (int(number) for number in np.frombuffer(data[:8], "<u4"))
    return np.frombuffer(data[8 + rows:], "<f4").reshape(rows, features), np.frombuffer(data[8:8 + rows], np.uint8)


def peer(name, train, test, threads):
    """One fit of a peer, in this process."""
    import numpy as np
    from sklearn.metrics import average_precision_score, roc_auc_score

    (x, y), (fresh, labels) = read(train), read(test)
    weights = np.where(y == 1, len(y) / 2 / y.sum(), len(y) / 2 / (len(y) - y.sum()))
    size = None
    if name.startswith("lightgbm"):
        import lightgbm

        settings = {"objective": "binary", "num_leaves": LEAVES, "learning_rate": RATE, "max_bin": 255,
                    "min_data_in_leaf": LEAF_ROWS, "num_threads": threads, "verbose": -1}
        settings |= {"force_row_wise": True} if name != "lightgbm" else {}
        settings |= {"use_quantized_grad": True} if name.endswith("quantized") else {}
        begin, cpu = time.perf_counter(), time.process_time()
        model = lightgbm.train(settings, lightgbm.Dataset(x, y, weight=weights), TREES)
        seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
        score, size = lambda: model.predict(fresh, num_threads=1), len(model.model_to_string())
    elif name.startswith("xgboost"):
        import xgboost

        settings = {"objective": "binary:logistic", "tree_method": "hist", "grow_policy": "lossguide", "max_leaves": LEAVES,
                    "max_depth": 0, "eta": RATE, "max_bin": 255, "nthread": threads}
        begin, cpu = time.perf_counter(), time.process_time()
        model = xgboost.train(settings, xgboost.QuantileDMatrix(x, y, weight=weights, max_bin=255, nthread=threads), TREES)
        seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
        model.set_param({"nthread": 1})
        score, size = lambda: model.inplace_predict(fresh), len(model.save_raw("json"))
    else:
        from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

        if name.endswith("hgb"):
            model = HistGradientBoostingClassifier(max_iter=TREES, max_leaf_nodes=LEAVES, learning_rate=RATE, max_bins=255,
                                                   min_samples_leaf=LEAF_ROWS, early_stopping=False)
        else:
            model = RandomForestClassifier(FOREST_TREES, max_depth=16, min_samples_leaf=3, n_jobs=threads, random_state=7)
            x, fresh = np.nan_to_num(x, nan=-1e6), np.nan_to_num(fresh, nan=-1e6)
        begin, cpu = time.perf_counter(), time.process_time()
        model.fit(x, y, sample_weight=weights)
        seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
        score = lambda: model.predict_proba(fresh)[:, 1]
    begin = time.perf_counter()
    scores = score()
    score_us = 1e6 * (time.perf_counter() - begin) / len(fresh)
    return {"seconds": seconds, "cpu_seconds": cpu, "roc_auc": roc_auc_score(labels, scores),
            "pr_auc": average_precision_score(labels, scores), "score_us": score_us, "model_bytes": size}


def run(command, threads):
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=SECONDS_MAX, check=True)
        return json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        print(f"failed: {' '.join(command)}: {error} {getattr(error, 'stderr', '') or ''}"[:2000], file=sys.stderr)
        return None


def best(results):
    results = [result for result in results if result]
    return min(results, key=lambda result: result["seconds"]) if results else None


def compare(options, table, train, test, threads):
    """All tools on one table, in turn; for each tool its best repeat."""
    features = read(train)[0].shape[1]
    forest = {"algorithm": "random_forest", "trees": FOREST_TREES, "depth_max": 16, "leaf_rows_min": 3,
              "features_per_split": max(1, round(features ** 0.5))}
    commands = {f"picket {kind}": [options.ours, train, test, json.dumps(params), str(threads), "1"]
                for kind, params in (("boosting", BOOSTING), ("forest", forest))}
    for name, (distribution, _, _) in PEERS.items():
        try:
            metadata.version(distribution)
        except metadata.PackageNotFoundError:
            print(f"missing peer: {name} ({distribution} is not installed)", file=sys.stderr)
            continue
        commands[name] = [sys.executable, __file__, "--peer", name, train, test, str(threads)]
    if options.only:
        commands = {name: command for name, command in commands.items() if any(part in name for part in options.only.split(","))}
    results = {name: [] for name in commands}
    for _ in range(options.repeats):
        for name, command in commands.items():
            results[name].append(run(command, threads))
    results = {name: best(of_tool) for name, of_tool in results.items()}
    print(f"\n{table}, {threads} threads", file=options.table)
    print(f"{'':<22}{'fit s':>9}{'cpu s':>9}{'ROC-AUC':>10}{'PR-AUC':>9}{'score µs':>10}{'bytes':>10}", file=options.table)
    for name, result in results.items():
        if result is None:
            print(f"{name:<22}  failed", file=options.table)
            continue
        print(f"{name:<22}{result['seconds']:>9.2f}{result['cpu_seconds']:>9.2f}{result['roc_auc']:>10.5f}"
              f"{result['pr_auc']:>9.4f}{result['score_us']:>10.2f}{result['model_bytes'] or '-':>10}", file=options.table)
    for name, result in results.items():
        ours = results.get(f"picket {PEERS[name][1]}") if name in PEERS else None
        if result and ours:
            judge(options, f"{table}, {threads} threads", name, ours, result)


def judge(options, table, name, ours, theirs):
    """One line of JSON for each measure."""
    _, kind, goal = PEERS[name]
    tolerance = 0.001 if kind == "boosting" else 0.002
    measures = [(f"{kind} fit", "seconds", "s", goal), (f"{kind} fit, processor", "cpu_seconds", "s", goal),
                (f"{kind} score a row", "score_us", "µs", 0.2), (f"{kind} model", "model_bytes", "bytes", 0.1)]
    lines = []
    for measure, key, unit, most in measures:
        if theirs[key]:
            ratio = ours[key] / theirs[key]
            lines.append((measure, key, unit, ratio, f"≤ {most}", ratio <= most))
    for measure, key in ((f"{kind} ROC-AUC", "roc_auc"), (f"{kind} PR-AUC", "pr_auc")):
        lines.append((measure, key, "", ours[key] / theirs[key], f"≥ theirs − {tolerance}", ours[key] >= theirs[key] - tolerance))
    for measure, key, unit, ratio, goal, met in lines:
        line = {"name": f"{measure}: {table}", "ours": ours[key], "peer": name, "theirs": theirs[key], "unit": unit,
                "ratio": ratio, "goal": goal, "met": met}
        if options.json:
            print(json.dumps(line, ensure_ascii=False), flush=True)


def main():
    if sys.argv[1:2] == ["--peer"]:
        name, train, test, threads = sys.argv[2:]
        print(json.dumps(peer(name, train, test, int(threads))))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--ours", required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--only", help="tools whose names contain one of these words, divided by commas")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    options.table = sys.stderr if options.json else sys.stdout
    if options.quick:
        options.rows, options.repeats = 20_000, 1
    tables = [(f"generated {options.rows:,} × 40", lambda: (generated(options.rows, 40, 1), generated(100_000, 40, 2)))]
    data = os.environ.get("PICKET_DATA")
    if data:
        for name, dropped in (("unsw_nb15_82k_dev", {"id", "attack_cat"}), ("kdd99_10pct_dedup", {"attack"})):
            tables.append((name, lambda name=name, dropped=dropped: real(data, f"{name}.csv.zst", dropped)))
    train, test = (os.path.join(options.folder, f"{part}.table") for part in ("train", "test"))
    for table, make in tables:
        for path, part in zip((train, test), make()):
            write(path, part)
        for threads in options.threads.split(","):
            compare(options, table, train, test, int(threads))


if __name__ == "__main__":
    main()
