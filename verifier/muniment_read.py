"""What the verifier reads: encodings, checkpoints, trees and record files. The numbers in comments are sections of docs/format.md."""
import base64, functools, hashlib, json, os, re, struct

import cbor2
import pyarrow as pa
import pyarrow.parquet as pq
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

I64 = 2**63
LOG = re.compile("[a-z][a-z0-9_]*")
LEDGER = {"id": "int", "stream_index": "int", "recorded_at": "timestamp", "salt": 16, "blockchain_hash": 32, "erased_payload_hash": 32}
KINDS = {"text": str, "json": str, "inet": str, "uuid": str, "int": int, "bool": bool, "timestamp": int, "decimal": int}
PARQUET = {"int": r"INT64 (None|Int\(bitWidth=64, isSigned=true\)) ", "bool": "BOOLEAN None ",
           "timestamp": r"INT64 Timestamp\(isAdjustedToUTC=true, timeUnit=microseconds, "}
# What a decoder, or our own reading of a value of the wrong type, can raise on bad input.
BAD_INPUT = (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RecursionError, MemoryError, struct.error,
             pa.ArrowException, NotImplementedError)


class Fail(Exception):
    """Something failed; no verdict: the verifier could not do its work. `where` may hold stream, index, first, last, file."""
    def __init__(self, verdict, reason, **where):
        super().__init__(reason)
        self.verdict, self.reason, self.where = verdict, reason, where


def need(condition, reason, verdict="malformed", **where):
    if not condition:
        raise Fail(verdict, reason, **where)


def first_line(e):
    return (str(e).splitlines() or [type(e).__name__])[0][:200]


# ---- Plain encodings: numbers, hexadecimal, Base64, JSON, CBOR ----

def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def count(value, what, low=0):
    need(type(value) is int and low <= value < I64, f"{what} is not a number in range")
    return value


def unhex(text, size, what):
    need(isinstance(text, str) and re.fullmatch("[0-9a-f]{%d}" % (2 * size), text), f"{what} is not {size} bytes in lower-case hexadecimal")
    return bytes.fromhex(text)


def unbase64(text, what):
    data = base64.b64decode(text, validate=True)
    need(base64.b64encode(data).decode() == text, f"{what} is not Base64")
    return data


def parse_json(data, what):
    """JSON without floats and without repeated keys, which two readers could understand in two ways."""
    def no(_):
        raise ValueError("a number that is not an integer")

    def pairs(items):
        need(len(dict(items)) == len(items), f"{what}: a key is repeated")
        return dict(items)
    value = json.loads(data.decode("utf-8"), object_pairs_hook=pairs, parse_float=no, parse_constant=no)
    need(isinstance(value, dict), f"{what}: not an object")
    return value


def cbor_item(data, at, depth=0):
    """One deterministically encoded item (RFC 8949 §4.2.1) at `at`: (value, position after it). Refuses every other encoding."""
    need(at < len(data), "CBOR ends too soon")
    major, n, at = data[at] >> 5, data[at] & 31, at + 1
    if major == 7:
        need(n in (20, 21), "CBOR value of an unknown kind")
        return n == 21, at
    if n >= 24:
        width = 1 << (n - 24)
        need(n <= 27 and at + width <= len(data), "CBOR head is not definite or ends too soon")
        n, at = int.from_bytes(data[at:at + width], "big"), at + width
        need(n >= (24 if width == 1 else 1 << (4 * width)), "CBOR head is not the shortest")
    if major < 2:
        return -1 - n if major else n, at
    need(major != 6 and depth < 16, "CBOR has a tag or is nested too deeply")
    need(n <= len(data) - at, "CBOR length is beyond the end")
    if major < 4:
        return data[at:at + n].decode("utf-8") if major == 3 else data[at:at + n], at + n
    items, keys, last = [], [], b""
    for _ in range(n):
        if major == 5:
            start = at
            key, at = cbor_item(data, at, depth + 1)
            need(isinstance(key, str) and data[start:at] > last, "CBOR map keys are not texts in order")
            last = data[start:at]
            keys.append(key)
        item, at = cbor_item(data, at, depth + 1)
        items.append(item)
    return dict(zip(keys, items)) if major == 5 else items, at


def cbor_map(data, what):
    value, end = cbor_item(data, 0)
    need(end == len(data) and isinstance(value, dict), f"{what} is not one CBOR map")
    return value


def has_types(record, **types):
    return {name: type(value) for name, value in record.items()} == types


# ---- Files ----

def regular_file(folder, path, **where):
    full = os.path.join(folder, path)
    need(os.path.lexists(full), f"{path} is not there", "missing", file=path, **where)
    need(os.path.isfile(full) and not os.path.islink(full), f"{path} is not a regular file", file=path, **where)
    return full


def read(full, limit=1 << 28):
    with open(full, "rb") as f:
        data = f.read(limit + 1)
    need(len(data) <= limit, f"{os.path.basename(full)} is too large")
    return data


# ---- Keys and checkpoints (2.2) ----

class Key:
    def __init__(self, vkey):
        self.vkey = vkey
        self.name, key_hash, data = vkey.split("+", 2)
        data = unbase64(data, "the verifier key")
        need(self.name and not re.search(r"\s", self.name) and len(data) == 33 and data[0] == 1, "not an Ed25519 verifier key")
        self.hash = unhex(key_hash, 4, "the verifier key's hash")
        need(self.hash == sha(self.name.encode(), b"\n", data)[:4], "the verifier key's hash does not fit the key")
        self.public = Ed25519PublicKey.from_public_bytes(data[1:])


class Note:
    def __init__(self, data, what):
        self.what = what
        text, _, signatures = data.decode("utf-8").rpartition("\n\n")
        lines = text.split("\n")
        need(len(lines) == 3 and lines[0] and re.fullmatch("[1-9][0-9]{0,18}", lines[1], re.ASCII) and signatures.endswith("\n")
             and not re.search(r"[\x00-\x09\x0b-\x1f]", text), f"{what} is not a checkpoint")
        self.origin, self.size, self.root = lines[0], count(int(lines[1]), f"{what}: the size"), unbase64(lines[2], f"{what}: the root")
        need(len(self.root) == 32, f"{what}: the root is not 32 bytes")
        self.text, self.signatures = (text + "\n").encode(), []
        for line in signatures[:-1].split("\n"):
            parts = line.split(" ")
            need(len(parts) == 3 and parts[0] == "\u2014" and len(self.signatures) < 100, f"{what}: not a signature line")
            self.signatures.append((parts[1], unbase64(parts[2], f"{what}: a signature")))

    def signed_by(self, key):
        for name, signature in self.signatures:
            if self.origin == name == key.name and signature[:4] == key.hash:
                try:
                    key.public.verify(signature[4:], self.text)
                    return True
                except InvalidSignature:
                    pass
        return False


# ---- Trees (2) ----

class Tree:
    def __init__(self):
        self.stack = []

    def append(self, level, index, node):
        stack = self.stack
        while stack and stack[-1][0] == level and stack[-1][1] % 2 == 0:
            level, index, node = level + 1, index // 2, sha(b"\x01", stack.pop()[2], node)
        stack.append((level, index, node))

    def root(self):
        return functools.reduce(lambda right, left: sha(b"\x01", left, right), [node for _, _, node in reversed(self.stack)] or [sha()])


def compact_range(a, b):
    while a < b:
        level = min((a & -a or b).bit_length(), (b - a).bit_length()) - 1
        yield level, a >> level
        a += 1 << level


def root_from_path(leaf, index, size, path):
    """RFC 6962 §2.1.1, from the root down: the last step of the path is the root's other half."""
    need(index < size, "an inclusion path for a leaf beyond the tree")
    need(isinstance(path, list) and bool(path) == (size > 1), "an inclusion path of the wrong length")
    if size == 1:
        return leaf
    half, step = 1 << (size - 1).bit_length() - 1, unhex(path[-1], 32, "a path")
    if index < half:
        return sha(b"\x01", root_from_path(leaf, index, half, path[:-1]), step)
    return sha(b"\x01", step, root_from_path(leaf, index - half, size - half, path[:-1]))


# ---- Records (1) and the files they are in (3) ----

def log_of(stream):
    log, _, years = stream.partition("/")
    need(LOG.fullmatch(log) and re.fullmatch("[0-9]+y", years, re.ASCII), "not a stream name")
    return log


def stream_id(origin, stream):
    return sha(origin.encode(), b"\0", stream.encode())[:16]


def leaf_hash(sid, index, number, recorded_at, payload_hash, previous):
    return sha(b"\0\x01", sid, struct.pack(">Qqq", index, number, recorded_at), payload_hash, previous)


def of_kind(value, kind, name):
    need(type(value) is KINDS[kind] and (type(value) is not int or -I64 <= value < I64), f"column {name} is not of its kind")
    return value


class Columns:
    """The kinds of a record file's columns; the data columns in the order of the payload's keys."""
    def __init__(self, columns):
        self.data = {c["name"]: c["kind"] for c in sorted(columns, key=lambda c: cbor2.dumps(c["name"]))}
        self.all = {**LEDGER, **self.data}
        self.decimals = {c["name"]: (c["precision"], c["scale"]) for c in columns if c["kind"] == "decimal"}

    def payload(self, values):
        return cbor2.dumps({name: value for name, value in zip(self.data, values) if value is not None})

    def parquet_type(self, name):
        if name in self.decimals:
            return r"\w+ Decimal\(precision=%d, scale=%d\)" % self.decimals[name]
        kind = self.all[name]
        return f"FIXED_LEN_BYTE_ARRAY None {kind}$" if isinstance(kind, int) else PARQUET.get(kind, "BYTE_ARRAY String")


def rows(full, columns):
    """The records of a file, as tuples: the ledger columns, then one tuple of the data columns."""
    return (parquet_rows if full.endswith(".parquet") else ndjson_rows)(full, columns)


def parquet_rows(full, columns):
    file, there = pq.ParquetFile(full), set()
    for i in range(len(file.schema)):
        column = file.schema.column(i)
        need(column.path in columns.all and column.path not in there and column.max_repetition_level == 0, f"column {column.path} is not in the schema")
        need(re.match(columns.parquet_type(column.path), f"{column.physical_type} {column.logical_type} {column.length}"), f"column {column.path} is not of its kind")
        there.add(column.path)
    need(there >= set(LEDGER), "a ledger column is not there")
    for batch in file.iter_batches(batch_size=4096):
        values = {name: parquet_values(batch.column(name), name, columns) if name in there else [None] * batch.num_rows for name in columns.all}
        data = [values[name] for name in columns.data]
        yield from zip(*(values[name] for name in LEDGER), zip(*data) if data else [()] * batch.num_rows)


def parquet_values(array, name, columns):
    array, kind = array.storage if isinstance(array, pa.ExtensionArray) else array, columns.all[name]
    if kind == "decimal":
        return [None if v is None else int(v.scaleb(columns.decimals[name][1])) for v in array.to_pylist()]
    return array.cast(pa.binary(kind) if isinstance(kind, int) else {int: pa.int64(), bool: pa.bool_(), str: pa.string()}[KINDS[kind]]).to_pylist()


def ndjson_rows(full, columns, limit=1 << 26):
    with open(full, "rb") as f:
        while line := f.readline(limit):
            need(line.endswith(b"\n"), "a line is too long or has no end")
            row = parse_json(line, "a line")
            need(row.keys() <= columns.all.keys(), f"column {', '.join(row.keys() - columns.all.keys())} is not in the schema")
            yield (*(ndjson_value(row.get(name), name, kind) for name, kind in LEDGER.items()),
                   tuple(ndjson_value(row.get(name), name, kind) for name, kind in columns.data.items()))


def ndjson_value(value, name, kind):
    if value is None:
        return None
    if isinstance(kind, int):
        return unhex(value, kind, name)
    if kind == "decimal":
        need(re.fullmatch("0|-?[1-9][0-9]{0,18}", value, re.ASCII), f"column {name} is not of its kind")
        value = int(value)
    return of_kind(value, kind, name)
