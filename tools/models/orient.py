"""Images for the example task `orient`, and what rapidocr-onnxruntime's own Python says of them.

    PYTHONPATH=.. python3 tools/models/orient.py DIRECTORY

Writes lines of text, half of them upside down, in many sizes and kinds of PNG into DIRECTORY/*.png, and
DIRECTORY/expected.json: label and score as the package's text classifier gives them for the image that its loader reads.
"""

import json
import random
import sys
from importlib.metadata import version
from pathlib import Path

import rapidocr_onnxruntime
from PIL import Image, ImageDraw, ImageFont
from rapidocr_onnxruntime.ch_ppocr_cls import TextClassifier
from rapidocr_onnxruntime.utils import LoadImage, read_yaml

TEXTS = [
    "The quick brown fox",
    "Deterministic results",
    "Invoice 2026-1187",
    "PLATFORM 9",
    "a jolly good pig",
    "Receipts are signed by the host",
    "42",
    "hello@example.org",
]
# Height of the letters, room around them: heights of the image below, at and above the model's 48, and twice it.
SIZES = [(12, 4), (18, 5), (24, 6), (34, 6), (40, 14), (72, 12), (110, 20)]
MODES = ["RGB", "L", "1", "RGBA", "LA"]


def draw(text: str, letters: int, room: int, random_: random.Random) -> Image.Image:
    """Dark letters on a bright ground, or the other way round."""
    font = ImageFont.load_default(letters)
    left, top, right, bottom = font.getbbox(text)
    ground, ink = ((random_.randrange(200, 256), random_.randrange(200, 256), random_.randrange(200, 256)), (20, 10, 40))
    if random_.random() < 0.3:
        ground, ink = ink, ground
    image = Image.new("RGB", (right - left + 2 * room, bottom - top + 2 * room), ground)
    ImageDraw.Draw(image).text((room - left, room - top), text, ink, font)
    return image


def transparent(image: Image.Image) -> Image.Image:
    """The letters alone: what is bright is nothing."""
    mask = image.convert("L").point(lambda value: 255 if value < 128 else 0)
    result = image.convert("RGBA")
    result.putalpha(mask)
    return result


def images() -> dict[str, Image.Image]:
    random_ = random.Random(20261)
    made = {}
    for index in range(48):
        text, (letters, room) = TEXTS[index % len(TEXTS)], SIZES[index % len(SIZES)]
        mode = MODES[index // 2 % len(MODES)] if index % 2 else "RGB"
        image = draw(text, letters, room, random_)
        image = transparent(image) if mode == "RGBA" else image.convert(mode)
        if random_.random() < 0.5:
            image = image.rotate(180)
        made[f"{index:02}-{mode}-{image.width}x{image.height}"] = image
    # The sizes at which resizing takes another way: the same, exactly half, one pixel.
    wide = draw("Receipts", 40, 20, random_)
    made["same"] = wide.resize((192, 48))
    made["half"] = wide.resize((384, 96))
    made["half-upside-down"] = wide.resize((384, 96)).rotate(180)
    made["narrow"] = wide.resize((3, 200))
    made["one-pixel"] = wide.resize((1, 1))
    made["tall"] = wide.rotate(90, expand=True)
    made["noise"] = Image.frombytes("RGB", (97, 61), random.Random(5).randbytes(97 * 61 * 3))
    # Without a pixel that shows, which is another branch of the package's.
    made["invisible"] = Image.new("RGBA", (80, 30), (0, 0, 0, 0))
    return made


def main() -> None:
    root = Path(sys.argv[1])
    config = read_yaml(Path(rapidocr_onnxruntime.__file__).parent / "config.yaml")["Cls"]
    config |= {"model_path": Path(rapidocr_onnxruntime.__file__).parent / config["model_path"], "intra_op_num_threads": 1}
    classifier, load = TextClassifier(config), LoadImage()
    expected = []
    for name, image in images().items():
        path = root / f"{name}.png"
        image.save(path)
        _, [(label, score)], _ = classifier(load(str(path)))
        expected.append({"name": path.name, "label": label, "score": float(score)})
    (root / "expected.json").write_text(json.dumps({"rapidocr": version("rapidocr-onnxruntime"), "images": expected}, indent=1))


main()
