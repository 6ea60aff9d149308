"""Captions from the command line: one line a picture, its path, a tab and the text.

python -m engine.generate --model runs/quickstart/generative/model --image apple.png
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from engine.loading import GenerativeModel, load


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (2: a mistake of the user's, named in one line)."""
    parser = argparse.ArgumentParser(prog="python -m engine.generate", description=__doc__)
    parser.add_argument(
        "--model", required=True, metavar="DIR", help="an exported generative model"
    )
    parser.add_argument("--image", required=True, nargs="+", metavar="FILE", help="pictures")
    parser.add_argument("--prompt", default="", help="text that the caption continues")
    parser.add_argument("--temperature", type=float, default=0.0, help="0: greedy (default)")
    parser.add_argument("--top-p", type=float, default=1.0, help="nucleus sampling; default 1")
    parser.add_argument("--max-new-tokens", type=int, default=25, help="default 25")
    parser.add_argument("--seed", type=int, default=0, help="of the sampling; default 0")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    args = parser.parse_args(argv)
    try:
        model = load(args.model, device=args.device)
        if not isinstance(model, GenerativeModel):
            raise ValueError(f"{args.model}: a {model.kind} model has no text to give")
        texts = model.generate(
            model.image_features(args.image),
            prompt=args.prompt,
            max_new_tokens=args.max_new_tokens,
            temperature=args.temperature,
            top_p=args.top_p,
            seed=args.seed,
        )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for path, text in zip(args.image, texts, strict=True):
        print(f"{path}\t{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
