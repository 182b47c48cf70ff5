"""Scores the rows of a table with an exported model in ONNX Runtime, and compares with the scores of `picketctl model score`.

check.py MODEL.onnx ROWS.csv SCORES.csv: prints the greatest difference; ends with 1 when it is above 1e-5, with 3 when ONNX
Runtime is not installed.
"""

import csv
import sys


def main():
    try:
        import numpy as np
        import onnxruntime
    except ImportError as error:
        print(f"missing: {error}")
        sys.exit(3)
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    columns = session.get_inputs()[0].shape[1]
    with open(sys.argv[2], encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    values = np.array([[float(cell or "nan") for cell in row[:columns]] for row in rows], dtype=np.float32)
    found = session.run(["score"], {"features": values})[0][:, 0]
    with open(sys.argv[3], encoding="utf-8") as file:
        scores = np.array([float(row["score"]) for row in csv.DictReader(file)])
    difference = float(np.abs(found - scores).max())
    print(difference)
    sys.exit(0 if len(found) == len(scores) and difference <= 1e-5 else 1)


if __name__ == "__main__":
    main()
