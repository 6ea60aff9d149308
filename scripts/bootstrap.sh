#!/usr/bin/env bash
# Everything a fresh Debian 12 machine lacks, in four steps that each do nothing when already done:
# Debian packages, a virtual environment, pinned Python packages, the C++ extension.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}
STAMP=$VENV/.installed
say() { printf '\033[1m[set-up]\033[0m %s\n' "$*"; }

# 1. Debian packages. FFCV needs OpenCV core and imgproc and libjpeg-turbo; the picture book needs
#    the Tux Paint stamps; WordNet is what METEOR is tested against; the rest is a compiler and Python's headers.
need=()
deb() { dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'ok installed' || need+=("$1"); }
if command -v dpkg-query >/dev/null; then
  for p in libopencv-core-dev libopencv-imgproc-dev libturbojpeg0-dev pkg-config tuxpaint-stamps-default \
           wordnet-base wordnet-sense-index; do deb "$p"; done
  command -v g++ >/dev/null || need+=(g++)
  command -v "$PYTHON" >/dev/null || need+=(python3 python3-dev python3-venv)
  if command -v "$PYTHON" >/dev/null; then
    "$PYTHON" -c 'import ensurepip' 2>/dev/null || need+=(python3-venv)
    "$PYTHON" -c 'import sysconfig,os,sys; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"),"Python.h")))' || need+=(python3-dev)
  fi
  if [ ${#need[@]} -gt 0 ]; then
    line="apt-get update && apt-get install -y --no-install-recommends ${need[*]}"
    if [ "$(id -u)" = 0 ]; then
      say "installing Debian packages: ${need[*]}"
      apt-get update -qq
      DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${need[@]}" >/dev/null
    else
      say "these Debian packages are missing. Type this line, then the same command again:"
      echo "  sudo sh -c '$line'"
      exit 1
    fi
  fi
else
  say "not a Debian system: FFCV needs OpenCV (core, imgproc), libjpeg-turbo, pkg-config and g++"
fi

# 2. Python and the virtual environment.
"$PYTHON" - <<'PY' || exit 1
import sys
if not (3, 11) <= sys.version_info[:2] <= (3, 12):
    sys.exit(f"[set-up] Python {sys.version.split()[0]} found; 3.11 or 3.12 is needed (set PYTHON=/path/to/python3.11)")
PY
[ -x "$VENV/bin/python" ] || { say "creating $VENV"; "$PYTHON" -m venv "$VENV"; }

# 3. Pinned packages. FFCV is a source distribution: it is compiled against a pkg-config file that
#    names only the two OpenCV libraries it uses (Debian's own opencv4.pc asks for all of them).
want=$(cat requirements*.txt setup.py pyproject.toml csrc/*.?pp scripts/bootstrap.sh | sha256sum | cut -d' ' -f1)
built() { ls _native*.so >/dev/null 2>&1; }
if [ "$(cat "$STAMP" 2>/dev/null)" = "$want" ] && built; then
  say "everything is in place"
  exit 0
fi
pip() { "$VENV/bin/python" -m pip --disable-pip-version-check -q "$@"; }
export DS_BUILD_OPS=0
say "installing Python packages (about 6 GB, a few minutes the first time)"
pip install -r requirements.txt
pip install --no-deps -r requirements-standin.txt
if ! "$VENV/bin/python" -c 'import importlib.metadata as m; m.version("ffcv")' 2>/dev/null; then
  say "compiling FFCV"
  pc=$(mktemp -d)
  mkdir -p "$pc/include/opencv2"
  printf '#include <opencv2/core.hpp>\n#include <opencv2/imgproc.hpp>\n' > "$pc/include/opencv2/opencv.hpp"
  cat > "$pc/opencv4.pc" <<'PC'
Name: opencv4
Description: the two OpenCV libraries that FFCV uses
Version: 4.6.0
Libs: -lopencv_imgproc -lopencv_core
Cflags: -I${pcfiledir}/include -I/usr/include/opencv4
PC
  PKG_CONFIG_PATH="$pc:${PKG_CONFIG_PATH:-}" pip install -r requirements-ffcv.txt
  rm -r "$pc"
fi

# 4. The project itself, with its C++ extension.
say "building the C++ extension"
pip install --no-build-isolation --no-deps -e .
"$VENV/bin/python" -c 'import _native' || { say "the C++ extension was not built"; exit 1; }
echo "$want" > "$STAMP"
say "done"
