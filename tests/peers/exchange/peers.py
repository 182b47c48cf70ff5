"""Imports models of other tools and exports them again; prints how far the scores are from the tools' own."""

import argparse
import json
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
GOAL = 1e-5


def run(command):
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", required=True)
    parser.add_argument("--picketctl", required=True)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    table = sys.stderr if options.json else sys.stdout
    models, made = os.path.join(options.folder, "models"), os.path.join(options.folder, "made")
    for folder in (models, made):
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
    done = run([sys.executable, os.path.join(HERE, "make.py"), models, str(options.seed)])
    if done.returncode != 0:
        sys.exit(done.stderr)
    print("".join(line + "\n" for line in done.stderr.splitlines() if line.startswith("missing")), end="", file=sys.stderr)
    failed = 0
    names = sorted(name for name in os.listdir(models) if not name.endswith((".csv", ".shap")))
    for name in names:
        rows = os.path.join(models, "rows-whole.csv" if name.endswith(".onnx") else "rows.csv")
        model, scores, onnx = (os.path.join(made, name + ending) for ending in (".picket", ".csv", ".onnx"))
        done = run([options.picketctl, "-o", "json", "model", "import", "--from", os.path.join(models, name), "--to", model,
                    "--rows", rows, "--predictions", name])
        if name.startswith("refused"):
            failed += done.returncode != 2
            print(f"{name:<36} refused: {done.stderr.strip()[-120:]}" if done.returncode == 2 else f"{name}: taken!", file=table)
            continue
        if done.returncode != 0:
            failed += 1
            print(f"{name:<36} failed: {done.stderr.strip()}", file=table)
            continue
        imported = json.loads(done.stdout)["difference_max"]
        steps = [
            [options.picketctl, "model", "convert", "--model", model, "--to", onnx],
            [options.picketctl, "model", "score", "--model", model, "--input", rows, "--reasons", "0", "--to", scores],
            [sys.executable, os.path.join(HERE, "check.py"), onnx, rows, scores],
        ]
        results = [run(step) for step in steps]
        bad = [result for result in results if result.returncode != 0]
        exported = None if bad else float(results[-1].stdout)
        failed += bool(bad)
        shown = f"{exported:.1e}" if not bad else f"failed: {bad[0].stdout} {bad[0].stderr}"
        print(f"{name:<36} import within {imported:.1e}, export within {shown}", file=table)
        if options.json:
            for step, difference in (("import", imported), ("export", exported)):
                if difference is not None:
                    line = {"name": step, "ours": difference, "peer": name, "theirs": GOAL, "unit": "score",
                            "ratio": difference / GOAL, "goal": "≤ 1", "met": difference <= GOAL}
                    print(json.dumps(line, ensure_ascii=False), flush=True)
    sys.exit(1 if failed or not names else 0)


if __name__ == "__main__":
    main()
