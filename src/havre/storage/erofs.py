"""Writes EROFS indexes: file system images without data, whose files' data is in the layer's own uncompressed tar.

Maps tar entries to inodes and encodes them (Linux `fs/erofs/erofs_fs.h`); pure: entries in, bytes out. The image is
mounted with the tar as its extra device. Blocks are 512 bytes, like tar's, so a file is one chunk that starts at the
tar
offset of its data.

    0        1024        1152         1536                            (next block)
    +--------+-----------+------------+-------------------------------+-----------------------------+
    | zeros  | superblock| device slot| inodes, 64-byte aligned:      | 512-byte blocks:            |
    |        |           | (the tar)  |  64 B, xattrs, chunks or link |  directories, long symlinks |
    +--------+-----------+------------+-------------------------------+-----------------------------+
                                       ^ root: nid 48 (address / 32; the field has 16 bits)

Deterministic: the same entries and tar size give the same bytes. The superblock's UUID is the first 16 bytes of the
layer's diff ID, because nothing else links an index to its tar at mount time.

A layer that no index can represent raises `Unindexable` and is unpacked instead: a member below a symbolic link, a
sparse file whose extents are not block-aligned. An invalid layer raises `InvalidInput`, as in `unpack`: a file as a
parent directory, a hard link whose target is not in this layer.

Why: docs/decisions/010.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator

from havre.errors import InvalidInput
from havre.storage import whiteouts
from havre.tar.reader import Entry

BLOCK = 512
MAX_METADATA = (
    1 << 30
)  # memory limit of a layer's nodes and their index, in bytes: about a million files, or half of that
_MAX_CHUNKS = 1 << 16  # of one sparse file
_NODE_COST, _XATTR_COST = 900, 300  # estimated bytes, in addition to variable-length fields
_BLOCK_COST = 2000  # for a node with blocks of its own: a directory, a link

_SUPER = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQB23x")
_CHUNK = struct.Struct("<HHI")
_INODE = struct.Struct("<HHHHQIIIIQII16x")
_SUPER_AT, _DEVICE_AT, _INODES_AT = 1024, 1152, 1536
_MAGIC = 0xE0F5E1E2
_COMPAT_MTIME = 2
_CHUNKED_FILE, _DEVICE_TABLE = 4, 8
_EXTENDED, _PLAIN, _INLINE, _CHUNKED = 1, 0 << 1, 2 << 1, 4 << 1
_CHUNK_INDEXES = 0x20
_HOLE = 0xFFFFFFFF

_XATTR_PREFIXES = ((b"user.", 1), (b"trusted.", 4), (b"security.", 6))
_TYPES = {
    "file": stat.S_IFREG, "dir": stat.S_IFDIR, "symlink": stat.S_IFLNK,
    "char": stat.S_IFCHR, "block": stat.S_IFBLK, "fifo": stat.S_IFIFO,
}  # fmt: skip
_DIRENT_TYPES = {
    stat.S_IFREG: 1, stat.S_IFDIR: 2, stat.S_IFCHR: 3, stat.S_IFBLK: 4, stat.S_IFIFO: 5, stat.S_IFLNK: 7,
}  # fmt: skip


class Unindexable(Exception):
    """The layer is valid, but must be unpacked; the message says why."""


class Node:
    """An inode of the index. A layer may have a million, so it stores only what the index needs.

    `children` is None unless it is a directory, `hidden` None unless its whiteouts hide names. `union` is the inode's
    i_u:
    the chunk format of a file, or a device number. `tail` is what follows the inode and its xattrs.
    """

    __slots__ = (
        "children", "gid", "hidden", "link", "links", "mode", "mtime_ns", "mtime_s", "nid", "opaque", "size", "tail",
        "uid", "union", "xattrs",
    )  # fmt: skip

    def __init__(self, entry: Entry) -> None:
        self.children: dict[bytes, Node] | None = None
        self.hidden: set[bytes] | None = None
        self.opaque = False
        self.links = self.nid = self.size = self.union = 0
        self.tail = self.link = b""
        self.xattrs = entry.xattrs or _NO_XATTRS
        self.describe(entry)
        if entry.kind == "dir":
            self.children = {}
        elif entry.kind == "symlink":
            self.link, self.size = entry.link, len(entry.link)
        elif entry.kind == "file":
            self._lay_out(entry)
        else:
            self.union = _device_number(*entry.rdev)

    def describe(self, entry: Entry) -> None:
        """Take the metadata of `entry`; keeps the children."""
        self.mode = _TYPES[entry.kind] | (0o777 if entry.kind == "symlink" else entry.mode)
        self.uid, self.gid, self.mtime_s, self.mtime_ns = entry.uid, entry.gid, entry.mtime_s, entry.mtime_ns

    def _lay_out(self, entry: Entry) -> None:
        self.size = entry.size
        if entry.size:
            bits = _chunk_bits(entry)
            self.tail, self.union = _chunks(entry, bits), _CHUNK_INDEXES | (bits - 9)


_NO_XATTRS: dict[bytes, bytes] = {}
_IMPLICIT = Entry(path=b"", kind="dir", mode=0o755, uid=0, gid=0, mtime_s=0, mtime_ns=0)
_WHITEOUT = Entry(path=b"", kind="char", mode=0, uid=0, gid=0, mtime_s=0, mtime_ns=0)


class Index:
    """The tree of one layer: `add` its entries in the tar's order, then `render` the image."""

    def __init__(self) -> None:
        self._root = Node(_IMPLICIT)
        self._dirs: dict[bytes, Node] = {b"": self._root}  # directories by path
        self._budget = MAX_METADATA
        self.root: Entry | None = None  # the entry of the root directory, if the tar contains one

    def add(self, entry: Entry) -> None:
        """Add one member. Raises `InvalidInput` or `Unindexable`."""
        cost = _BLOCK_COST if entry.kind in ("dir", "symlink") else _NODE_COST
        self._spend(cost, entry.path, entry.link, entry.link, entry.link)
        if whiteouts.is_bookkeeping(entry.path):
            return
        for name, value in entry.xattrs.items():
            self._spend(_XATTR_COST, name, value, value)
        if not entry.path:
            self._set_root(entry)
            return
        directory, _, name = entry.path.rpartition(b"/")
        parent = self._directory(directory)
        if name == whiteouts.OPAQUE_MARKER:
            parent.opaque = True
        elif (hidden := whiteouts.hidden_name(name)) is not None:
            parent.hidden = parent.hidden or set()
            parent.hidden.add(hidden)
        elif entry.kind == "hardlink":
            self._link(parent, name, entry)
        else:
            self._place(parent, name, entry)

    def _spend(self, cost: int, *texts: bytes) -> None:
        self._budget -= cost + sum(map(len, texts))
        if self._budget < 0:
            raise InvalidInput("layer holds more files than can be indexed")

    def _set_root(self, entry: Entry) -> None:
        if entry.kind != "dir":
            raise InvalidInput(f"layer has a {entry.kind} for its root directory")
        self.root = entry
        _merge(self._root, entry)

    def _directory(self, path: bytes) -> Node:
        """The directory `path`; missing parents are created with mode 0755 and time 0."""
        if (known := self._dirs.get(path)) is not None:
            return known
        above, _, name = path.rpartition(b"/")
        children = _children(self._directory(above))
        node = children.get(name)
        if node is None:
            self._spend(_BLOCK_COST, path)
            node = children[name] = Node(_IMPLICIT)
        _require_directory(node, path)
        self._dirs[path] = node
        return node

    def _place(self, parent: Node, name: bytes, entry: Entry) -> None:
        children = _children(parent)
        old = children.get(name)
        if old is not None and old.children is not None:
            if entry.kind == "dir":
                _merge(old, entry)
                return
            self._dirs = {b"": self._root}
        node = children[name] = Node(entry)
        self._spend(0, node.tail, node.tail, node.tail)

    def _link(self, parent: Node, name: bytes, entry: Entry) -> None:
        if entry.link == entry.path:
            return
        target = self._find(entry.link)
        if target is None or target.children is not None:
            raise InvalidInput(
                f"hard link {entry.path!r} names {entry.link!r}, which is no earlier file of its layer",
                "rebuild the image so that the file and its links are in one layer",
            )
        if (old := _children(parent).get(name)) is not None and old.children is not None:
            self._dirs = {b"": self._root}
        _children(parent)[name] = target

    def _find(self, path: bytes) -> Node | None:
        node = self._root
        at = b""
        for name in path.split(b"/"):
            _require_directory(node, at)
            child = _children(node).get(name)
            if child is None:
                return None
            node, at = child, name
        return node

    def files(self) -> Iterator[tuple[bytes, Node]]:
        """Yield every path of the layer, except the root, with its inode; whiteouts are character devices 0:0."""
        _finish(self._root)
        stack = [(b"", self._root)]
        while stack:
            above, parent = stack.pop()
            for name, node in _children(parent).items():
                yield above + name, node
                if node.children is not None:
                    stack.append((above + name + b"/", node))

    def render(self, uuid: bytes, tar_size: int) -> bytearray:
        """Encode the image. `uuid`: 16 bytes; `tar_size`: bytes of the tar that it will be mounted with."""
        _finish(self._root)
        nodes = list(_walk(self._root))
        end = _number_inodes(nodes)
        blocks_at = -(-end // BLOCK) * BLOCK
        image, blocks = bytearray(blocks_at), bytearray()
        for number, (node, parent) in enumerate(nodes, 1):
            data, layout = node.link, _PLAIN
            if node.children is not None:
                data = _directory_data(node, parent)
                node.size = len(data)
            elif node.tail:
                data, layout = b"", _INLINE if node.link else _CHUNKED
            if data:
                node.union = (blocks_at + len(blocks)) // BLOCK
                blocks += data + bytes(-len(data) % BLOCK)
            _write_inode(image, node, number, layout)
        image += blocks
        _write_head(image, uuid, len(nodes), tar_size)
        return image


def _children(node: Node) -> dict[bytes, Node]:
    if node.children is None:
        raise AssertionError("not a directory")
    return node.children


def _require_directory(node: Node, path: bytes) -> None:
    if node.children is None:
        if stat.S_ISLNK(node.mode):
            raise Unindexable(f"members below the symbolic link {path!r}")
        raise InvalidInput(f"layer has members below {path!r}, which is not a directory")


def _merge(node: Node, entry: Entry) -> None:
    """An existing directory takes the new entry's metadata and keeps its children."""
    node.describe(entry)
    node.xattrs = node.xattrs | entry.xattrs


def _chunk_bits(entry: Entry) -> int:
    """log2 of the largest chunk size with all extents chunk-aligned; a file without holes is one chunk."""
    edges = 0
    for extent in entry.extents:
        end = extent.start + extent.length
        edges |= extent.start | (0 if end == entry.size else end)
    bits = max(9, (entry.size - 1).bit_length())
    return min(bits, (edges & -edges).bit_length() - 1) if edges else bits


def _chunks(entry: Entry, bits: int) -> bytes:
    """The chunk indexes of the file (8 bytes each: 0, device 1, block), for chunks of 2**bits bytes; holes have no
    block."""
    if len(entry.extents) == 1 and entry.extents[0].length == entry.size:
        return _CHUNK.pack(0, 1, _block_of(entry, entry.extents[0].offset))
    count = -(-entry.size >> bits) if bits >= 9 else 0
    if bits < 9 or count > _MAX_CHUNKS:
        raise Unindexable(f"sparse file {entry.path!r} has too fine a map")
    indexes = bytearray(_CHUNK.pack(0, 0, _HOLE) * count)
    for extent in entry.extents:
        for at in range(0, extent.length, 1 << bits):
            number = (extent.start + at) >> bits
            _CHUNK.pack_into(indexes, number * _CHUNK.size, 0, 1, _block_of(entry, extent.offset + at))
    return bytes(indexes)


def _block_of(entry: Entry, offset: int) -> int:
    if offset % BLOCK or offset // BLOCK >= _HOLE:
        raise Unindexable(f"data of {entry.path!r} is not block-aligned")
    return offset // BLOCK


def _finish(node: Node) -> None:
    """Apply whiteouts and opaque marks below `node`; called when every member is known."""
    for name in node.hidden or ():
        child = _children(node).get(name)
        if child is None:
            _children(node)[name] = Node(_WHITEOUT)
            node.xattrs = node.xattrs | whiteouts.ORIGIN_XATTRS
        elif child.children is not None:
            child.opaque = True
    if node.opaque:
        node.xattrs = node.xattrs | whiteouts.OPAQUE_XATTRS
    for child in _children(node).values():
        if child.children is not None:
            _finish(child)


def _walk(root: Node) -> Iterator[tuple[Node, Node]]:
    """Yield every inode once with its (first) parent, the root first, and count links."""
    root.links = 2
    yield root, root
    stack = [root]
    while stack:
        parent = stack.pop()
        for name in sorted(_children(parent)):
            node = _children(parent)[name]
            if node.children is not None:
                node.links = 2
                parent.links += 1
                stack.append(node)
                yield node, parent
            else:
                node.links += 1
                if node.links == 1:
                    yield node, parent


def _number_inodes(nodes: list[tuple[Node, Node]]) -> int:
    """Assign each node its address; returns the end of the last one."""
    at = _INODES_AT
    for node, _ in nodes:
        at = -(-at // 64) * 64
        node.nid = at // 32
        at += _INODE.size + _xattr_size(node)
        if stat.S_ISREG(node.mode):
            at = -(-at // 8) * 8 + len(node.tail)
        elif stat.S_ISLNK(node.mode):
            # A short link's target follows its inode inline, but must not cross a block boundary.
            fits = at // BLOCK == (at + len(node.link) - 1) // BLOCK and at % BLOCK
            node.tail = node.link if fits else b""
            at += len(node.tail)
    return at


def _xattr_size(node: Node) -> int:
    if not node.xattrs:
        return 0
    size = 12 + sum(-(-(4 + len(_short(name)[1]) + len(value)) // 4) * 4 for name, value in node.xattrs.items())
    if (size - 12) // 4 + 1 > 0xFFFF:
        raise InvalidInput(f"extended attributes {sorted(node.xattrs)[:3]!r} of one file of the layer are too large")
    return size


def _short(name: bytes) -> tuple[int, bytes]:
    for prefix, index in _XATTR_PREFIXES:
        if name.startswith(prefix):
            return index, name[len(prefix) :]
    raise AssertionError(f"the tar parser let {name!r} pass")


def _write_inode(image: bytearray, node: Node, number: int, layout: int) -> None:
    at = node.nid * 32
    xattrs = _xattr_size(node)
    _INODE.pack_into(
        image, at,
        _EXTENDED | layout, (xattrs - 12) // 4 + 1 if xattrs else 0, node.mode, 0, node.size,
        node.union, number, node.uid, node.gid, node.mtime_s & 0xFFFFFFFFFFFFFFFF, node.mtime_ns, node.links,
    )  # fmt: skip
    at += _INODE.size
    body = at + 12  # the first 12 bytes are the header: name filter (unused), no shared attributes
    for name, value in sorted(node.xattrs.items()):
        index, short = _short(name)
        record = struct.pack("<BBH", len(short), index, len(value)) + short + value
        image[body : body + len(record)] = record
        body += -(-len(record) // 4) * 4
    at += xattrs
    if stat.S_ISREG(node.mode):
        at = -(-at // 8) * 8
    image[at : at + len(node.tail)] = node.tail


def _directory_data(node: Node, parent: Node) -> bytes:
    """Blocks of sorted entries: first all 12-byte heads of a block, then its names."""
    names = sorted([*_children(node), b".", b".."])
    targets = _children(node) | {b".": node, b"..": parent}
    data, batch, used = bytearray(), list[bytes](), 0
    for name in names:
        if used + 12 + len(name) > BLOCK:
            data += _directory_block(batch, targets).ljust(BLOCK, b"\0")
            batch, used = [], 0
        batch.append(name)
        used += 12 + len(name)
    return bytes(data) + _directory_block(batch, targets)


def _directory_block(names: list[bytes], targets: dict[bytes, Node]) -> bytes:
    heads, offset = [], 12 * len(names)
    for name in names:
        target = targets[name]
        heads.append(struct.pack("<QHBB", target.nid, offset, _DIRENT_TYPES[stat.S_IFMT(target.mode)], 0))
        offset += len(name)
    return b"".join(heads + names)


def _device_number(major: int, minor: int) -> int:
    """The kernel's new_encode_dev()."""
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


def _write_head(image: bytearray, uuid: bytes, inodes: int, tar_size: int) -> None:
    _SUPER.pack_into(
        image, _SUPER_AT,
        _MAGIC, 0, _COMPAT_MTIME, 9, 0, _INODES_AT // 32, inodes, 0, 0, len(image) // BLOCK, 0, 0,
        uuid, b"", _CHUNKED_FILE | _DEVICE_TABLE, 0, 1, _DEVICE_AT // 128, 0, 0, 0, 0, 0,
    )  # fmt: skip
    struct.pack_into("<II", image, _DEVICE_AT + 64, max(1, -(-tar_size // BLOCK)), 0)


def read_uuid(head: bytes) -> bytes | None:
    """The UUID in the first 1536 bytes of an index, None if it is not an index; compared before mounting."""
    if len(head) < _INODES_AT or head[_SUPER_AT : _SUPER_AT + 4] != struct.pack("<I", _MAGIC):
        return None
    return head[_SUPER_AT + 48 : _SUPER_AT + 64]
