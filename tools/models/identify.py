"""Inputs for the example task `identify`, and what magika's own Python says of them.

    PYTHONPATH=.. python3 tools/models/identify.py DIRECTORY

Writes files of many kinds into DIRECTORY/files, among them sources of this repository, and DIRECTORY/expected.json. Names
have no extension, since nothing may be learnt from them.
"""

import bz2
import gzip
import io
import json
import lzma
import marshal
import pickle
import random
import shutil
import sqlite3
import struct
import sys
import tarfile
import wave
import zipfile
from pathlib import Path

import numpy as np
from magika import Magika
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = [
    ".ci/run",
    ".gitignore",
    "ARCHITECTURE.md",
    "Cargo.lock",
    "Cargo.toml",
    "README.md",
    "data/digits/digits.onnx",
    "data/digits/labels.csv",
    "data/text/sonnets.txt",
    "deny.toml",
    "guest-sdk/src/nn.rs",
    "host/src/limits.rs",
    "tests/data/boolector.wasm",
    "tools/install-models",
    "tools/models/packages.txt",
    "tools/train_digits.py",
]
WORDS = "grid host task module model shard receipt audit verdict ledger fuel limit quorum input output".split()


def texts() -> dict[str, str]:
    """Formats that people write by hand."""
    rows = [(index, WORDS[index % len(WORDS)], index * index % 97) for index in range(60)]
    functions = [f"compute_{word}" for word in WORDS]
    return {
        "c": "#include <stdio.h>\n#include <stdlib.h>\n\n"
        + "".join(f"static int {name}(int x) {{\n    return x * {len(name)};\n}}\n\n" for name in functions)
        + 'int main(void) {\n    printf("%d\\n", compute_grid(7));\n    return 0;\n}\n',
        "cpp": "#include <iostream>\n#include <vector>\n\nnamespace grid {\n"
        + "".join(f"template <typename T> T {name}(const std::vector<T>& v) {{ return v.front(); }}\n" for name in functions)
        + '}\n\nint main() {\n    std::vector<int> v{1, 2, 3};\n    std::cout << grid::compute_task(v) << std::endl;\n}\n',
        "java": "package org.example.grid;\n\nimport java.util.List;\n\npublic final class Host {\n"
        + "".join(f"    public static int {name}(List<Integer> xs) {{ return xs.size(); }}\n" for name in functions)
        + "}\n",
        "go": 'package main\n\nimport "fmt"\n\n'
        + "".join(f"func {name}(x int) int {{\n\treturn x + {len(name)}\n}}\n\n" for name in functions)
        + 'func main() {\n\tfmt.Println(compute_host(3))\n}\n',
        "javascript": "'use strict';\nconst fs = require('fs');\n\n"
        + "".join(f"function {name}(x) {{ return x.map(y => y * {len(name)}); }}\n" for name in functions)
        + "module.exports = { compute_grid, compute_host };\n",
        "typescript": "interface Host { name: string; slots: number }\n\n"
        + "".join(f"export const {name} = (hosts: Host[]): number => hosts.length + {len(name)};\n" for name in functions),
        "ruby": "module Grid\n" + "".join(f"  def self.{name}(x)\n    x.map {{ |y| y * 2 }}\n  end\n" for name in functions) + "end\n",
        "php": "<?php\nnamespace Grid;\n" + "".join(f"function {name}($x) {{ return $x * 2; }}\n" for name in functions) + "?>\n",
        "perl": "#!/usr/bin/perl\nuse strict;\nuse warnings;\n" + "".join(f"sub {name} {{ my ($x) = @_; return $x * 2; }}\n" for name in functions),
        "lua": "local grid = {}\n" + "".join(f"function grid.{name}(x)\n  return x * 2\nend\n" for name in functions) + "return grid\n",
        "shell": "#!/bin/sh\nset -eu\n" + "".join(f'{name}() {{\n  echo "{name}: $1"\n}}\n' for name in functions) + "compute_grid 7\n",
        "makefile": "CC = cc\nCFLAGS = -O2 -Wall\n\nall: " + " ".join(WORDS) + "\n\n" + "".join(f"{w}: {w}.o\n\t$(CC) $(CFLAGS) -o $@ $<\n\n" for w in WORDS) + "clean:\n\trm -f *.o\n",
        "dockerfile": "FROM debian:stable\nRUN apt-get update && apt-get install -y curl\nWORKDIR /srv\nCOPY . /srv\nENV MODE=grid\nEXPOSE 8080\nCMD [\"/srv/run\"]\n",
        "sql": "".join(f"CREATE TABLE {w} (id INTEGER PRIMARY KEY, name TEXT NOT NULL);\nINSERT INTO {w} VALUES (1, '{w}');\nSELECT * FROM {w} WHERE id = 1;\n" for w in WORDS),
        "css": "".join(f".{w} {{\n  color: #33{i:02x}66;\n  margin: 0 auto;\n  padding: {i}px;\n}}\n" for i, w in enumerate(WORDS)),
        "html": "<!DOCTYPE html>\n<html>\n<head><title>Grid</title></head>\n<body>\n" + "".join(f"<p class=\"{w}\">The {w} of the grid.</p>\n" for w in WORDS) + "</body>\n</html>\n",
        "xml": '<?xml version="1.0" encoding="UTF-8"?>\n<grid>\n' + "".join(f'  <host id="{a}"><name>{b}</name><score>{c}</score></host>\n' for a, b, c in rows) + "</grid>\n",
        "svg": '<svg xmlns="http://www.w3.org/2000/svg" width="100" height="100">\n' + "".join(f'  <circle cx="{a}" cy="{c}" r="3" fill="none" stroke="black"/>\n' for a, _, c in rows) + "</svg>\n",
        "json": json.dumps([{"id": a, "name": b, "score": c} for a, b, c in rows], indent=2),
        "jsonl": "".join(json.dumps({"id": a, "name": b, "score": c}) + "\n" for a, b, c in rows),
        "yaml": "version: 2\nhosts:\n" + "".join(f"  - id: {a}\n    name: {b}\n    score: {c}\n" for a, b, c in rows),
        "ini": "".join(f"[{w}]\nenabled = true\nlimit = {i}\n\n" for i, w in enumerate(WORDS)),
        "csv": "id,name,score\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows),
        "tsv": "id\tname\tscore\n" + "".join(f"{a}\t{b}\t{c}\n" for a, b, c in rows),
        "latex": "\\documentclass{article}\n\\usepackage{amsmath}\n\\begin{document}\n\\section{Grid}\n" + "".join(f"The \\emph{{{w}}} is $x^{{{i}}}$.\n\n" for i, w in enumerate(WORDS)) + "\\end{document}\n",
        "diff": "--- a/grid.c\n+++ b/grid.c\n@@ -1,4 +1,4 @@\n #include <stdio.h>\n-int old(int x);\n+int new(int x);\n int main(void) {\n     return 0;\n",
        "srt": "".join(f"{i + 1}\n00:00:{i:02d},000 --> 00:00:{i:02d},900\nThe {w}.\n\n" for i, w in enumerate(WORDS)),
        "eml": "From: a@example.org\nTo: b@example.org\nSubject: The grid\nDate: Mon, 02 Nov 2026 10:00:00 +0000\nMIME-Version: 1.0\nContent-Type: text/plain\n\nHello,\n\nthe grid is up.\n",
        "po": 'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=UTF-8\\n"\n\n' + "".join(f'msgid "{w}"\nmsgstr "{w.upper()}"\n\n' for w in WORDS),
        "prose": "It was late when the last host came back to the grid, and nobody had expected it any more. " * 20,
        "assembly": "section .text\nglobal _start\n_start:\n" + "".join(f"    mov rax, {i}\n    call {w}\n    ret\n" for i, w in enumerate(WORDS)),
    }


def binaries(random_: random.Random) -> dict[str, bytes]:
    """Formats that programs write."""
    text = " ".join(random_.choice(WORDS) for _ in range(3000)).encode()
    files = {"gzip": gzip.compress(text, mtime=0), "bzip": bz2.compress(text), "xz": lzma.compress(text)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for word in WORDS:
            archive.writestr(zipfile.ZipInfo(f"{word}.txt"), text[:500])
    files["zip"] = buffer.getvalue()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for word in WORDS[:4]:
            member = tarfile.TarInfo(f"{word}.txt")
            member.size = 300
            archive.addfile(member, io.BytesIO(text[:300]))
    files["tar"] = buffer.getvalue()
    pixels = np.add.outer(np.arange(48), 2 * np.arange(64)).astype(np.uint8)
    image = Image.fromarray(np.stack([pixels, pixels[::-1], pixels[:, ::-1]], axis=2))
    for kind in ["png", "jpeg", "gif", "bmp", "tiff", "webp", "ico", "pdf", "ppm", "tga"]:
        buffer = io.BytesIO()
        image.save(buffer, format=kind)
        files[kind] = buffer.getvalue()
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as sound:
        sound.setparams((1, 2, 16000, 0, "NONE", ""))
        sound.writeframes(np.int16(3000 * np.sin(np.arange(4000) / 7)).tobytes())
    files["wav"] = buffer.getvalue()
    buffer = io.BytesIO()
    np.save(buffer, np.arange(600, dtype=np.float32))
    files["npy"] = buffer.getvalue()
    files["pickle"] = pickle.dumps({word: list(range(20)) for word in WORDS}, protocol=4)
    code = compile("def double(x):\n    return 2 * x\n" * 20, "grid.py", "exec")
    files["bytecode"] = b"\xa7\r\r\n" + bytes(12) + marshal.dumps(code)
    database = sqlite3.connect(":memory:")
    database.execute("create table host (id integer primary key, name text)")
    database.executemany("insert into host (name) values (?)", [(word,) for word in WORDS])
    database.commit()
    files["sqlite"] = database.serialize()
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0x401000, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    files["elf"] = header + struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 4096, 4096, 4096) + bytes(random_.choices([0x48, 0x89, 0xC3, 0x90, 0xE8, 0, 0x0F], k=3000))
    files["random"] = random_.randbytes(10_000)
    return files


def edges(random_: random.Random) -> dict[str, bytes]:
    """Sizes and whitespace at which the extraction of features takes another way."""
    line = b"let total = shards.iter().map(|shard| shard.bytes).sum::<u64>();\n"
    spaces = b" \t\n\r\x0b\x0c"
    files = {
        "empty": b"",
        "one-byte": b"x",
        "seven-bytes": b"1234567",
        "eight-bytes": b"12345678",
        "seven-not-utf8": b"\xff\xfe\xfd1234",
        "eight-not-utf8": b"\xff\xfe\xfd12345",
        "seven-and-space": b"  1234567\n\n",
        "eight-and-space": b"  12345678\n\n",
        "spaces": spaces * 1000,
        "spaces-then-text": spaces * 700 + line * 30,
        "text-then-spaces": line * 30 + spaces * 700,
        "text-between-spaces": spaces * 900 + line + spaces * 900,
        # Four thousand and ninety-six bytes end inside a character.
        "spaces-then-cut-character": b" " * 4095 + "ä".encode() + b" " * 100,
        "spaces-then-character": b" " * 4094 + "ä".encode() + b" " * 100,
        "other-spaces": "\u00a0\u2003\u0085".encode() * 300 + line * 10,
        "nul": bytes(5000),
        "latin1": "Die Größe der Aufgaben übertrifft öfter das Erträgliche.\n".encode("latin-1") * 40,
        "utf16": ("".join(random_.choice(WORDS) + " " for _ in range(400))).encode("utf-16"),
    }
    for size in [9, 16, 64, 255, 256, 512, 1023, 1024, 1025, 2047, 2048, 2049, 4095, 4096, 4097, 8191, 8192, 20_000]:
        files[f"rust-{size}"] = (line * (size // len(line) + 1))[:size]
    for size in [9, 100, 1024, 4096, 4100]:
        files[f"bytes-{size}"] = random_.randbytes(size)
    # A little of each of two languages: often not enough for any.
    snippets = sorted(texts().items())
    for (first, one), (second, other) in zip(snippets, snippets[7:] + snippets[:7]):
        files[f"mixed-{first}-{second}"] = (one[:40] + other[-40:]).encode()
    return files


def main() -> None:
    root = Path(sys.argv[1])
    files = root / "files"
    files.mkdir()
    random_ = random.Random(20261)
    contents = {f"text-{name}": text.encode() for name, text in texts().items()}
    contents |= {f"binary-{name}": data for name, data in binaries(random_).items()}
    contents |= {f"edge-{name}": data for name, data in edges(random_).items()}
    for name, data in contents.items():
        (files / name).write_bytes(data)
    for source in SOURCES:
        shutil.copyfile(REPOSITORY / source, files / ("source-" + source.replace("/", "-").replace(".", "-").lstrip("-")))
    magika = Magika()
    expected = []
    for path in sorted(files.iterdir()):
        prediction = magika.identify_path(path).prediction
        expected.append(
            {
                "name": path.name,
                "label": str(prediction.output.label),
                "model_label": str(prediction.dl.label),
                "score": float(prediction.score),
                "overwrite": str(prediction.overwrite_reason),
            }
        )
    (root / "expected.json").write_text(json.dumps({"magika": magika.get_module_version(), "files": expected}, indent=1))


main()
