"""Trains the digit classifier of the example job and writes data/digits.

    python3 -m venv .venv && .venv/bin/pip install -r tools/requirements.txt
    .venv/bin/python tools/train_digits.py

The data are the 1,797 handwritten digits of 8x8 pixels that scikit-learn carries. A fixed, stratified 540 of them are
held out: nothing below was fitted to them or chosen by them (layer size, amount of augmentation and length of training
were chosen by five-fold cross-validation inside the other 1,257). The network sees each training digit as it is and
WARPS more times, turned, scaled and shifted a little, because people write that way and because 1,257 digits are few.

The exported graph starts with the division by 16, so that a task sends pixels as they are in the file.

Running it twice on one machine writes the same bytes: one thread, one seed, one set of BLAS kernels, and nothing of the
environment in the ONNX file. Another processor may round another way and train another network, about as good; the
committed file is the one whose hash counts.
"""

import os
import warnings

# Read by OpenBLAS as it is loaded: before numpy.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["OPENBLAS_CORETYPE"] = "Haswell"

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from scipy import ndimage
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

SEED = 20260
HELD_OUT = 540
HIDDEN = 256
WARPS = 8
EPOCHS = 30
ACCURACY_MIN = 0.975
PIXEL_MAX = 16.0
OPSET = 17
IR_VERSION = 8

OUT = Path(__file__).resolve().parent.parent / "data" / "digits"


def main():
    pixels, labels = load_digits(return_X_y=True)
    train, heldout = train_test_split(np.arange(len(labels)), test_size=HELD_OUT, random_state=SEED, stratify=labels)

    network = fit(pixels[train], labels[train])
    model = to_onnx(network)
    parts = {"train": train, "heldout": heldout}
    accuracy = {name: check(model, network, pixels[part], labels[part]) for name, part in parts.items()}
    if accuracy["heldout"] < ACCURACY_MIN:
        raise SystemExit(f"held-out accuracy {accuracy['heldout']:.4f} is below {ACCURACY_MIN}: nothing is written")

    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "digits.onnx").write_bytes(model.SerializeToString(deterministic=True))
    write_lines("pixels.csv", (",".join(str(int(value)) for value in digit) for digit in pixels))
    held = set(heldout.tolist())
    write_lines("labels.csv", (f"{label},{'heldout' if i in held else 'train'}" for i, label in enumerate(labels)))
    for name, part in parts.items():
        print(f"{name}: {accuracy[name]:.4f} of {len(part)} digits")


def fit(pixels, labels):
    """The network, trained on these digits and their warps."""
    rng = np.random.default_rng(SEED)
    seen = np.concatenate([pixels] + [warp(pixels, rng) for _ in range(WARPS)])
    network = MLPClassifier(
        (HIDDEN,), alpha=1e-3, learning_rate_init=2e-3, max_iter=EPOCHS, n_iter_no_change=EPOCHS, random_state=SEED
    )
    # scikit-learn warns that the loss still falls after EPOCHS; that early end is meant.
    warnings.simplefilter("ignore", ConvergenceWarning)
    return network.fit(seen / PIXEL_MAX, np.tile(labels, WARPS + 1))


def warp(pixels, rng):
    """Each digit turned by up to 13 degrees, scaled by up to 12 % and shifted by up to 0.8 pixels."""
    centre = np.array([3.5, 3.5])
    warped = np.empty((len(pixels), 8, 8))
    for i, digit in enumerate(pixels.reshape(-1, 8, 8)):
        angle, scale, shift = rng.uniform(-0.22, 0.22), rng.uniform(0.88, 1.12), rng.uniform(-0.8, 0.8, 2)
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        matrix = np.array([[cos, -sin], [sin, cos]])
        warped[i] = ndimage.affine_transform(digit, matrix, centre - matrix @ centre + shift, order=1)
    return warped.reshape(-1, 64)


def to_onnx(network):
    """pixels f32 [N, 64], from 0 to 16 -> scores f32 [N, 10], the largest being the label."""
    nodes = [helper.make_node("Div", ["pixels", "pixel_max"], ["layer0"], name="normalise")]
    weights = [numpy_helper.from_array(np.array(PIXEL_MAX, np.float32), "pixel_max")]
    last = len(network.coefs_)
    for i, (weight, bias) in enumerate(zip(network.coefs_, network.intercepts_), start=1):
        weights.append(numpy_helper.from_array(weight.astype(np.float32), f"weight{i}"))
        weights.append(numpy_helper.from_array(bias.astype(np.float32), f"bias{i}"))
        dense = "scores" if i == last else f"dense{i}"
        nodes.append(helper.make_node("Gemm", [f"layer{i - 1}", f"weight{i}", f"bias{i}"], [dense], name=f"gemm{i}"))
        if i != last:
            nodes.append(helper.make_node("Relu", [dense], [f"layer{i}"], name=f"relu{i}"))
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 10])],
        weights,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="quorate"
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def check(model, network, pixels, labels):
    """Accuracy of the ONNX graph, after checking that it answers as the trained network does."""
    (scores,) = ReferenceEvaluator(model).run(None, {"pixels": pixels.astype(np.float32)})
    predicted = scores.argmax(axis=1)
    if not np.array_equal(predicted, network.predict(pixels / PIXEL_MAX)):
        raise SystemExit("the ONNX graph and the trained network disagree")
    return float((predicted == labels).mean())


def write_lines(name, lines):
    (OUT / name).write_text("".join(f"{line}\n" for line in lines), encoding="ascii", newline="\n")


if __name__ == "__main__":
    main()
