"""Builds the lab's image from its recipe, once, and keeps it in a cache outside the tree.

An image is a directory in the cache: the dom0's disk, the hypervisor, kernel and initramfs that
QEMU loads, and the ssh key that lets us in. It is made under another name and renamed when it is
complete, so that an interrupted build is never taken for an image.
"""

from __future__ import annotations

import fcntl
import gzip
import lzma
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .recipe import GUEST_DIR, Recipe

# The Debian package that brings each program that is used outside of dom0.
_HOST_PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "qemu-img": "qemu-utils",
    "zstd": "zstd",
}
_LINUX_MAGIC = b"HdrS"
# Large, and left out of the tree that is kept to build in.
_NOT_TO_BUILD_WITH = ("boot", "srv", "usr/lib/firmware", "usr/lib/modules", "usr/share/qemu", "var")


class LabError(Exception):
    """The lab can't be built, booted or reached; the message says what to do."""


@dataclass(frozen=True)
class Image:
    """A built image; `directory` holds all of its files."""

    recipe: Recipe
    directory: Path

    @property
    def disk(self) -> Path:
        return self.directory / "disk.img"

    @property
    def hypervisor(self) -> Path:
        return self.directory / "xen"

    @property
    def kernel(self) -> Path:
        return self.directory / "vmlinux"

    @property
    def initramfs(self) -> Path:
        return self.directory / "initrd.img"

    @property
    def ssh_key(self) -> Path:
        return self.directory / "ssh_key"

    @property
    def build_root(self) -> Path:
        """A root tree with dom0's compiler, headers and Python, to build in at native speed."""
        return self.directory / "root"

    @property
    def identity(self) -> str:
        """Unlike that of any other image, also of the same recipe: what was made from one fits no
        other."""
        return self.ssh_key.with_suffix(".pub").read_text()


def cache_directory() -> Path:
    """Where images and running labs are kept: $LIBXLSR_LAB_CACHE or ~/.cache/libxlsr-xenlab."""
    chosen = os.environ.get("LIBXLSR_LAB_CACHE")
    directory = Path(chosen) if chosen else Path.home() / ".cache" / "libxlsr-xenlab"
    directory.mkdir(parents=True, exist_ok=True)
    return directory.resolve()


def built_image(recipe: Recipe) -> Image:
    """The image of this recipe, built now if the cache has none. Raises LabError."""
    images = cache_directory() / "images"
    images.mkdir(exist_ok=True)
    image = Image(recipe, images / f"{recipe.xen}-{recipe.digest}")
    with locked(images / f"{recipe.xen}.lock"):
        # The one that was built here may have been on another machine.
        _install_host_packages()
        if not image.directory.is_dir():
            _build(image)
            _remove_older_images(image)
    return image


def remove_unfinished(directory: Path, kind: str) -> None:
    """Remove what an owner that was killed has left there; the caller has the lock of the kind."""
    for path in directory.glob(f".{kind}-*/"):
        shutil.rmtree(path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`, which is made if it is not there."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: Sequence[str | Path]) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode != 0:
        output = done.stdout.decode(errors="replace")[-4000:]
        raise LabError(f"{command[0]} failed with {done.returncode}:\n{output}")


def _say(message: str) -> None:
    print(f"xenlab: {message}", file=sys.stderr, flush=True)


def _mirror() -> str:
    """The Debian mirror that this machine uses itself. Raises LabError where it has none."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN)", "Created-By: Packages"],
        check=False,
        capture_output=True,
        text=True,
    )
    for line in listed.stdout.splitlines():
        uri, _, origin = line.partition(" ")
        if origin == "Debian" and "security" not in uri:
            return uri
    raise LabError("apt knows no Debian mirror here: is this Debian, and was apt-get update run?")


def missing_packages() -> list[str]:
    """The Debian packages that the lab needs here and that are not installed."""
    return sorted({pkg for prog, pkg in _HOST_PROGRAMS.items() if shutil.which(prog) is None})


def _install_host_packages() -> None:
    missing = missing_packages()
    if not missing:
        return
    if os.geteuid() != 0:
        raise LabError(f"missing programs; as root: apt-get install {' '.join(missing)}")
    _say(f"installing {' '.join(missing)}")
    _run(["apt-get", "update"])
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    _run(["env", "DEBIAN_FRONTEND=noninteractive", *install])


def _build(image: Image) -> None:
    recipe = image.recipe
    if os.geteuid() != 0:
        raise LabError("building the image needs root (mmdebstrap, mke2fs -d); using it doesn't")
    _say(f"building Xen {recipe.xen} on Debian {recipe.suite}; this takes some minutes")
    parent = image.directory.parent
    remove_unfinished(parent, recipe.xen)
    with tempfile.TemporaryDirectory(dir=parent, prefix=f".{recipe.xen}-") as work_name:
        work = Path(work_name)
        root, made = work / "root", Image(recipe, work / "image")
        made.directory.mkdir()
        key = str(made.ssh_key)
        _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "xenlab", "-f", key])
        _write_tree(work / "early", recipe.early_files)
        _write_tree(work / "files", recipe.files, recipe.executable)
        public_key = made.identity
        keys = [("authorized_keys", public_key), ("id_ed25519", made.ssh_key.read_text())]
        _write_tree(work / "files", [(f"/root/.ssh/{name}", key) for name, key in keys])
        _download_wheels(recipe, work / "files" / "root" / "wheels")
        _make_root(recipe, work, root)
        _take_boot_files(root / "boot", made)
        mke2fs = ["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0"]
        _run([*mke2fs, "-d", root, made.disk, recipe.disk_size])
        for path in _NOT_TO_BUILD_WITH:
            shutil.rmtree(root / path, ignore_errors=True)
        root.rename(made.build_root)
        made.directory.rename(image.directory)
    _say(f"built {image.directory}")


def _write_tree(
    directory: Path, files: Sequence[tuple[str, str]], executable: Sequence[str] = ()
) -> None:
    for name, content in files:
        path = directory / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(0o755 if name in executable else 0o644)


def _download_wheels(recipe: Recipe, directory: Path) -> None:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    _run([*pip, "--only-binary=:all:", "--dest", directory, *recipe.wheels])


def _make_root(recipe: Recipe, work: Path, root: Path) -> None:
    options = [f"path-exclude={path}" for path in recipe.excluded_paths]
    for module in recipe.kernel_modules:
        tree = module if module.endswith("*") else f"{module}/*"
        options.append(f"path-include=*/lib/modules/*/kernel/{tree}")
    set_up = work / "set_up.sh"
    set_up.write_text(recipe.set_up)
    _run(
        ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory"]
        + ["--quiet", "--architectures=amd64", "--include=" + ",".join(recipe.packages)]
        + [f"--dpkgopt={option}" for option in ("force-unsafe-io", *options)]
        + [f"--essential-hook=sync-in {work}/early /"]
        + [f"--customize-hook=sync-in {work}/files /"]
        + [f'--customize-hook=chroot "$1" sh <{set_up}']
        + [recipe.suite, str(root), f"deb {_mirror()} {recipe.suite} main"]
    )


def _take_boot_files(boot: Path, image: Image) -> None:
    """Unpack what QEMU and Xen would otherwise unpack (or can't) under emulation."""
    hypervisor = boot / f"xen-{image.recipe.xen}-amd64.gz"
    image.hypervisor.write_bytes(gzip.decompress(hypervisor.read_bytes()))
    (kernel,) = boot.glob("vmlinuz-*")
    image.kernel.write_bytes(_unpacked_kernel(kernel.read_bytes()))
    shutil.copyfile(image.kernel, boot.parent / GUEST_DIR.lstrip("/") / "vmlinux")
    (initramfs,) = boot.glob("initrd.img-*")
    shutil.copyfile(initramfs, image.initramfs)


def _unpacked_kernel(bzimage: bytes) -> bytes:
    """The ELF file in a bzImage (Documentation/arch/x86/boot.rst: payload_offset)."""
    if bzimage[0x202:0x206] != _LINUX_MAGIC:
        raise LabError("the image's kernel is no bzImage")
    setup_sectors = bzimage[0x1F1]
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = bzimage[start : start + length]
    if payload.startswith(b"\xfd7zXZ\0"):
        # The payload's last four bytes are the unpacked size, not part of the xz stream.
        return lzma.LZMADecompressor().decompress(payload)
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        done = subprocess.run(["zstd", "-dc"], input=payload[:-4], stdout=subprocess.PIPE)
        if done.returncode == 0:
            return done.stdout
    raise LabError("the image's kernel can't be unpacked")


def _remove_older_images(image: Image) -> None:
    for directory in image.directory.parent.glob(f"{image.recipe.xen}-*"):
        if directory != image.directory:
            shutil.rmtree(directory)
