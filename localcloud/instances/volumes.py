"""The files of secret volumes, as the archive that is unpacked in a container before it starts.

They are ordinary files of the container, not a mount: root may change its own copy; they are read once, at the start [approximated].
"""

import io
import tarfile
from pathlib import PurePosixPath

from localcloud.instances.blueprint import Blueprint, Part, Secrets, secret_value


def secret_files(blueprint: Blueprint, part: Part, secrets: Secrets) -> bytes:
    """The archive (b"" if the part mounts no secret); a secret that is not there is a Failure."""
    volumes = {each.name: (index, each) for index, each in enumerate(blueprint.volumes) if each.secret}
    out, folders = io.BytesIO(), set[str]()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, mount in part.mounts:
            if name not in volumes:
                continue
            index, volume = volumes[name]
            for file in volume.files:
                where = f"spec.template.spec.volumes[{index}].secret.secretName"
                value = secret_value(blueprint, volume.secret, file.version, where, secrets)
                _add(archive, folders, PurePosixPath(mount) / file.path, value, file.mode)
        empty = not archive.getmembers()
    return b"" if empty else out.getvalue()


def _add(archive: tarfile.TarFile, folders: set[str], path: PurePosixPath, value: bytes, mode: int) -> None:
    for parent in reversed(path.parents[:-1]):
        name = str(parent).lstrip("/")
        if name not in folders:
            folders.add(name)
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(folder)
    file = tarfile.TarInfo(str(path).lstrip("/"))
    file.size, file.mode = len(value), mode
    archive.addfile(file, io.BytesIO(value))
