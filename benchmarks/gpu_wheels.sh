#!/usr/bin/env bash
# Collect the packages that a GPU machine without a package index lacks, as wheels in FOLDER.
#
#     benchmarks/gpu_wheels.sh FOLDER
#
# The machine is Linux on x86-64 with Python 3.12. It has PyTorch, transformers, timm and the
# packages in "present" below. Copy the repository and FOLDER to it and install in its root:
#
#     python3 -m pip install --no-index --no-deps --target SITE FOLDER/*.whl
#     export PYTHONPATH=SITE:$(ls -d "$PWD"/packages/*/src | paste -sd: -)
#
# The packages of this project run from their source folders, so no wheels are made of them.
# Versions are those of constraints.txt. Needs python3 with pip, git, unzip and a package index.
#
# Exits with 1 and a reason when a package has no wheel, or when somebody needs a package that is
# neither in FOLDER nor on the machine. Prints the size of what is to be copied.

set -euo pipefail

# What the five packages need and the machine lacks, with all that these need in turn. The two
# typing packages are on the machine, but pydantic wants recent versions of both. starlette and
# uvicorn are flmm[demo]. The weights of clim-models[tiny] (100 MB) are left out.
missing="annotated-types braceexpand docstring-parser ftfy hjson open-clip-torch pycocotools
    pydantic pydantic-core starlette typeguard typing-extensions typing-inspection tyro uvicorn
    wcwidth webdataset"

# DeepSpeed has no wheel on the index. One is built here, without compiled operators.
built="deepspeed"

# What the wheels and the five packages need and the machine has.
present="anyio click einops h11 huggingface-hub matplotlib msgpack ninja numpy packaging pillow
    psutil py-cpuinfo pyyaml regex safetensors tensorboard timm torch torchvision tqdm
    transformers"

# Our own packages, and their extras that FOLDER serves.
ours="clim-data clim-models clim-eval clim-train flmm"
extras="demo"

fail() {
    echo "gpu_wheels.sh: $*" >&2
    exit 1
}

# Turn package names, one a line, into the spelling of the lists above.
plain_names() {
    tr 'A-Z_.' 'a-z--' | sort -u
}

# Print bytes as MiB with one decimal.
mib() {
    awk -v bytes="$1" 'BEGIN { printf "%.1f", bytes / 1048576 }'
}

# Print NAME==VERSION of a package as constraints.txt has it.
pinned() {
    local line
    line=$(grep -E "^$1==" constraints.txt | cut -d' ' -f1) ||
        fail "constraints.txt has no version of $1: add one, or take $1 off the list."
    echo "$line"
}

# Print the names that a wheel requires on that machine. Requirements of extras and of Python
# versions before 3.12 do not count.
needs_of_wheel() {
    unzip -p "$1" '*.dist-info/METADATA' |
        sed -n 's/^Requires-Dist: *//p' |
        { grep -vE "extra *==|python_version *< *['\"]3\.([0-9]|1[0-2])['\"]" || true; } |
        sed -E 's/^([A-Za-z0-9._-]+).*/\1/' | plain_names
}

# Print the names that one of our pyproject.toml files requires: the list "dependencies" and the
# extras above.
needs_of_ours() {
    awk -v extras="$extras" '
        BEGIN { count = split(extras, wanted, " ") }
        /^dependencies = \[/ { open = 1 }
        { for (i = 1; i <= count; i++) if (index($0, wanted[i] " = [") == 1) open = 1 }
        open { print }
        /\]$/ { open = 0 }
    ' "$1" | grep -oE '"[A-Za-z0-9._-]+' | tr -d '"' | plain_names
}

[ $# -eq 1 ] || fail "give one folder for the wheels: benchmarks/gpu_wheels.sh FOLDER"

for tool in python3 git unzip; do
    command -v "$tool" > /dev/null || fail "$tool is not on the PATH: install it."
done
python3 -m pip --version > /dev/null 2>&1 ||
    fail "$(command -v python3) has no pip: activate an environment that has it."

# A second version of a package would stop the whole installation, so the folder starts empty.
mkdir -p "$1"
folder=$(cd "$1" && pwd)
[ -z "$(ls -A "$folder")" ] || fail "$folder is not empty: empty it, or name a new folder."

cd "$(dirname "$0")/.."

# A run that fails leaves nothing in the folder.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Part 1: the wheels.

requirements=()
for name in $missing; do
    version=$(pinned "$name") || exit 1
    requirements+=("$version")
done

# pip takes the platform as it is written: it does not add the older ones.
python3 -m pip download --quiet --no-deps --only-binary=:all: --dest "$work" \
    --python-version 3.12 --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
    --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
    --platform manylinux1_x86_64 \
    "${requirements[@]}" ||
    fail "pip could not fetch every wheel: its message is above."

for name in $built; do
    version=$(pinned "$name") || exit 1

    # DS_BUILD_OPS=0 compiles no operator, and then the build needs no torch.
    DS_BUILD_OPS=0 python3 -m pip wheel --quiet --no-deps --wheel-dir "$work" "$version" ||
        fail "pip could not build $version: its message is above."
done

for wheel in "$work"/*.whl; do
    case $wheel in
    *-none-any.whl | *-manylinux*_x86_64.whl) ;;
    *) fail "$(basename "$wheel") does not install on Linux x86-64: build it without operators." ;;
    esac
done

# Part 2: is the set complete?

# Both lists are names with a space before and after each, so that a pattern finds whole names.
collected=$(for wheel in "$work"/*.whl; do basename "$wheel" | cut -d- -f1; done | plain_names)
collected=$(echo " $collected " | tr '\n' ' ')
known=$(echo "$collected $present $ours " | tr '\n' ' ')

for name in $missing $built; do
    case $collected in
    *" $name "*) ;;
    *) fail "there is no wheel of $name." ;;
    esac
done

# Fail when one of the names on the input is neither collected nor on the machine.
check_needs() {
    local name
    while read -r name; do
        case $known in
        *" $name "*) ;;
        *)
            fail "$1 needs $name, which is neither in the folder nor on the machine:" \
                "add $name to the list \"missing\" of this script."
            ;;
        esac
    done
}

for wheel in "$work"/*.whl; do
    needs_of_wheel "$wheel" | check_needs "$(basename "$wheel")"
done
for name in $ours; do
    needs_of_ours "packages/$name/pyproject.toml" | check_needs "$name"
done

# Part 3: sizes.

wheels=0
printf '%-64s %12s\n' wheel kB
for wheel in "$work"/*.whl; do
    bytes=$(wc -c < "$wheel")
    wheels=$((wheels + bytes))
    printf '%-64s %12d\n' "$(basename "$wheel" | cut -c1-64)" $((bytes / 1000))
done

tree=$(git ls-files -z -- benchmarks packages tests constraints.txt pyproject.toml |
    xargs -0 cat | wc -c)
echo
echo "wheels $(mib $wheels) MiB + files that the run reads $(mib "$tree") MiB" \
    "= $(mib $((wheels + tree))) MiB"

mv "$work"/*.whl "$folder"
echo "$folder is complete."
