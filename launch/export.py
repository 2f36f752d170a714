"""Write what a run has learnt as one file that other programs load:

    python launch/export.py RUN --format keras         plain Keras, in any program that has Keras 3
    python launch/export.py RUN --format weights       Keras' .weights.h5, for the network that you build yourself
    python launch/export.py RUN --format savedmodel    TensorFlow without Keras, TensorFlow Serving
    python launch/export.py RUN --format onnx          onnxruntime and many others (needs: make setup EXPORT=1)
    python launch/export.py RUN --format tflite        phones and small machines
    python launch/export.py RUN --format onnx --checkpoint last --out cats.onnx

All but weights take uint8 pixels [b, s, s, 3], any b, and answer with probabilities float32 [b, classes], also for two
classes.  Dropout is gone, and a network of 16 bits is computed in float32.  The record of the run (class names, how a
file becomes pixels) is inside of a SavedModel (assets/labels.json) and of an ONNX file (metadata "labels.json"); for
the others it lies beside, as NAME.labels.json.  Each file is loaded by another process, in the program it is made for,
and compared with the run on pictures before it gets its name.  The weights without any export are safetensors:
RUN/checkpoints/best/weights.safetensors.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from distributed.world import World, WorldError
from launch.job import environment
from launch.trained.command_line import Parser, expanded_path
from launch.trained.interrupts import Interrupts

FORMATS = ("keras", "weights", "savedmodel", "onnx", "tflite")


def create_parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_run()
    parser.add_argument("--format", required=True, choices=FORMATS, help="what to write, see above")
    parser.add_argument("--out", type=expanded_path, metavar="PATH", help="the file, or folder (default: in RUN)")
    parser.add_argument("--overwrite", action="store_true", help="replace an export that is there already")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Export a run and return the exit code: 0 written, 2 the user can mend it, 130 by Ctrl-C."""
    options = create_parser().parse_args(argv)
    try:
        world = World.from_environment(os.environ, "single")
    except WorldError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not world.is_chief:
        return 0  # under a launcher one rank is enough
    environment.prepare(World(), verbose=False)
    with environment.loading(quiet=True):
        from launch.exports.run import USER_ERRORS, export
    try:
        with Interrupts().heard():
            print(export(options.run, options.format, options.checkpoint, options.out, options.overwrite))
        return 0
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted; nothing was written", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
