"""Makes small models with the tools that are imported, and a table of rows with their own predictions.

make.py FOLDER [SEED]: writes each model that the installed tools can make, and rows.csv: the features f0 …, then for each model
a column of its name with the tool's score of the row, empty where it has none. `server/learn/fixtures` holds what one run made.
"""

import os
import sys

import numpy as np

# Rows that models learn from, those that are written, and the features of each.
ROWS, WRITTEN, FEATURES = 300, 80, 6


def table(seed):
    """Numbers of 32 bits, some of them missing, some the same again and again."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(ROWS, FEATURES)).astype(np.float32)
    x[:, 1] = np.round(x[:, 1] * 2) / 2
    x[:, 2] = random.integers(0, 5, ROWS)
    score = x[:, 0] + np.sin(2 * x[:, 1]) - 0.5 * x[:, 2] + x[:, 3] * x[:, 4]
    y = (score + random.normal(scale=0.5, size=ROWS) > 0).astype(int)
    whole = x.copy()
    x[random.random(x.shape) < 0.1] = np.nan
    return x, whole, y


def lightgbm_models(folder, x, y, predictions):
    import lightgbm

    def model(name, extra, rounds=8, categorical="auto"):
        settings = {"num_leaves": 7, "min_data_in_leaf": 10, "verbose": -1, "objective": "binary", "seed": 1} | extra
        data = lightgbm.Dataset(x, y, feature_name=[f"f{i}" for i in range(FEATURES)],
                                categorical_feature=categorical)
        booster = lightgbm.train(settings, data, rounds)
        booster.save_model(os.path.join(folder, name))
        return booster

    for name, extra in (
        ("lightgbm.txt", {}),
        ("lightgbm-sigmoid.txt", {"sigmoid": 0.5, "use_missing": False}),
        ("lightgbm-forest.txt", {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6}),
        ("lightgbm-dart.txt", {"boosting": "dart"}),
    ):
        booster = model(name, extra)
        predictions[name] = booster.predict(x)
        # The contributions of the features to the first rows, then the expected value.
        np.savetxt(os.path.join(folder, name + ".shap"), booster.predict(x, pred_contrib=True)[:20], fmt="%.17g")
    model("refused-lightgbm-categorical.txt", {"min_data_per_group": 5, "cat_smooth": 1},
          categorical=[2])
    model("refused-lightgbm-regression.txt", {"objective": "regression"}, 2)
    model("refused-lightgbm-zero.txt", {"zero_as_missing": True})
    model("refused-lightgbm-linear.txt", {"linear_tree": True}, 2)
    booster = lightgbm.train({"objective": "multiclass", "num_class": 3, "verbose": -1, "num_leaves": 3},
                             lightgbm.Dataset(x, y + (x[:, 0] > 1)), 2)
    booster.save_model(os.path.join(folder, "refused-lightgbm-classes.txt"))


def xgboost_models(folder, x, y, predictions):
    import xgboost

    names = [f"f{i}" for i in range(FEATURES)]
    data = xgboost.DMatrix(x, y, feature_names=names)
    usual = {"objective": "binary:logistic", "max_depth": 4, "seed": 1}
    for name, extra in (
        ("xgboost.json", {}),
        ("xgboost.ubj", {"tree_method": "exact", "base_score": 0.2}),
        ("xgboost-dart.json", {"booster": "dart", "rate_drop": 0.5}),
        ("xgboost-linear.json", {"booster": "gblinear"}),
        ("refused-xgboost-regression.json", {"objective": "reg:squarederror"}),
        ("refused-xgboost-classes.ubj", {"objective": "multi:softprob", "num_class": 2}),
    ):
        booster = xgboost.train(usual | extra, data, 6)
        booster.save_model(os.path.join(folder, name))
        if not name.startswith("refused"):
            predictions[name] = booster.predict(data)


def onnx_models(folder, x, whole, y, predictions):
    import onnxruntime
    from skl2onnx import to_onnx
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC
    from sklearn.tree import DecisionTreeClassifier

    def save(name, model):
        path = os.path.join(folder, name)
        with open(path, "wb") as file:
            file.write(model.SerializeToString())
        if not name.startswith("refused"):
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            scores = session.run(None, {session.get_inputs()[0].name: whole})[1]
            predictions[name] = np.array([score[1] for score in scores])

    for name, model in (
        ("forest.onnx", RandomForestClassifier(10, max_leaf_nodes=8, random_state=1)),
        ("extra.onnx", ExtraTreesClassifier(5, max_leaf_nodes=8, random_state=1)),
        ("tree.onnx", DecisionTreeClassifier(max_leaf_nodes=8, random_state=1)),
        ("logistic.onnx", make_pipeline(StandardScaler(), LogisticRegression())),
        ("refused-svm.onnx", SVC(probability=True, random_state=1)),
    ):
        save(name, to_onnx(model.fit(whole, y), whole[:1]))
    save("refused-classes.onnx", to_onnx(DecisionTreeClassifier(max_depth=3).fit(whole, y + (whole[:, 0] > 1)), whole[:1]))
    try:
        import lightgbm
        from onnxmltools.convert import convert_lightgbm
        from onnxmltools.convert.common.data_types import FloatTensorType

        booster = lightgbm.train({"objective": "binary", "num_leaves": 7, "verbose": -1}, lightgbm.Dataset(whole, y), 8)
        kind = [("input", FloatTensorType([None, FEATURES]))]
        save("lightgbm.onnx", convert_lightgbm(booster, initial_types=kind))
    except ImportError as error:
        print(f"missing: {error}", file=sys.stderr)


def main():
    folder, seed = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1
    os.makedirs(folder, exist_ok=True)
    x, whole, y = table(seed)
    predictions, of_whole = {}, {}
    for make in (lambda: lightgbm_models(folder, x, y, predictions), lambda: xgboost_models(folder, x, y, predictions),
                 lambda: onnx_models(folder, x, whole, y, of_whole)):
        try:
            make()
        except ImportError as error:
            print(f"missing: {error}", file=sys.stderr)
    for name, values, columns in (("rows.csv", x, predictions), ("rows-whole.csv", whole, of_whole)):
        if not columns:
            continue
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(",".join([f"f{i}" for i in range(FEATURES)] + list(columns)) + "\n")
            for row in range(WRITTEN):
                cells = ["" if np.isnan(value) else repr(float(value)) for value in values[row]]
                cells += [repr(float(scores[row])) for scores in columns.values()]
                file.write(",".join(cells) + "\n")


if __name__ == "__main__":
    main()
