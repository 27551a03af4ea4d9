#!/usr/bin/env python3
"""An independent offline verifier for Muniment bundles, proofs and checkpoints.

It was written from docs/format.md alone and shares no code with the rest of the project. The numbers in comments are sections of that document.

    muniment_verify.py BUNDLE --key VKEY_OR_FILE [--checkpoint PUBLISHED_NOTE_FILE] [--complete]
    muniment_verify.py --proof PROOF.json --key VKEY_OR_FILE
    muniment_verify.py --note CHECKPOINT_FILE --key VKEY_OR_FILE

Exit code 0: nothing failed; 1: something failed; 2: the verifier could not do its work.
"""
import argparse, base64, hashlib, json, os, re, stat, struct, sys

import cbor2
import pyarrow as pa
import pyarrow.parquet as pq
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

I64 = 2**63
ZERO = bytes(32)
LOG = re.compile("[a-z][a-z0-9_]*")
LEDGER = {"id": "int", "stream_index": "int", "recorded_at": "timestamp", "salt": 16, "blockchain_hash": 32, "erased_payload_hash": 32}
KINDS = {"text": str, "json": str, "inet": str, "uuid": str, "int": int, "bool": bool, "timestamp": int, "decimal": int}
# What a decoder, or our own reading of a value of the wrong type, can raise on bad input.
BAD_INPUT = (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RecursionError, MemoryError, struct.error,
             pa.ArrowException, NotImplementedError)


class Fail(Exception):
    """Something failed. `where` may hold stream, index, first, last, file."""
    def __init__(self, verdict, reason, **where):
        super().__init__(reason)
        self.verdict, self.reason, self.where = verdict, reason, where


class CannotWork(Exception):
    pass


def need(condition, reason, verdict="malformed", **where):
    if not condition:
        raise Fail(verdict, reason, **where)


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


def types_of(record):
    return {name: type(value) for name, value in record.items()}


# ---- Files ----

def regular_file(folder, path, **where):
    full = os.path.join(folder, *path.split("/"))
    try:
        mode = os.lstat(full).st_mode
    except FileNotFoundError:
        raise Fail("missing", f"{path} is not there", file=path, **where)
    need(stat.S_ISREG(mode), f"{path} is not a regular file", file=path, **where)
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

def parent(left, right):
    return sha(b"\x01", left, right)


class Tree:
    def __init__(self):
        self.stack = []

    def append(self, level, index, node):
        stack = self.stack
        while stack and stack[-1][0] == level and stack[-1][1] % 2 == 0:
            level, index, node = level + 1, index // 2, parent(stack.pop()[2], node)
        stack.append((level, index, node))

    def root(self):
        if not self.stack:
            return sha()
        result = self.stack[-1][2]
        for _, _, node in reversed(self.stack[:-1]):
            result = parent(node, result)
        return result


def compact_range(a, b):
    nodes = []
    while a < b:
        level = (a & -a).bit_length() - 1 if a else 63
        while a + (1 << level) > b:
            level -= 1
        nodes.append((level, a >> level))
        a += 1 << level
    return nodes


def root_from_path(leaf, index, size, path):
    """RFC 9162 §2.1.3.2"""
    need(index < size, "an inclusion path for a leaf beyond the tree")
    need(isinstance(path, list), "not an inclusion path")
    fn, sn, node = index, size - 1, leaf
    for step in path:
        step = unhex(step, 32, "a path")
        need(sn > 0, "an inclusion path is too long")
        if fn % 2 or fn == sn:
            node = parent(step, node)
            while fn % 2 == 0 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            node = parent(node, step)
        fn, sn = fn >> 1, sn >> 1
    need(sn == 0, "an inclusion path is too short")
    return node


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


class Records:
    """The records of a file, as tuples: the ledger columns, then one tuple of the data columns in the order of the payload's keys."""
    def __init__(self, full, columns):
        self.full, self.kinds = full, {c["name"]: c["kind"] for c in sorted(columns, key=lambda c: cbor2.dumps(c["name"]))}
        self.all = {**LEDGER, **self.kinds}
        self.decimals = {c["name"]: (c["precision"], c["scale"]) for c in columns if c["kind"] == "decimal"}
        self.open()

    def payload(self, values):
        return cbor2.dumps({name: value for name, value in zip(self.kinds, values) if value is not None})


class ParquetRecords(Records):
    def open(self):
        self.file, self.there = pq.ParquetFile(self.full), set()
        self.rows = self.file.metadata.num_rows
        for i in range(len(self.file.schema)):
            column = self.file.schema.column(i)
            need(column.path in self.all and column.path not in self.there and column.max_repetition_level == 0, f"column {column.path} is not in the schema")
            need(self.type_fits(column), f"column {column.path} is not of its kind")
            self.there.add(column.path)
        need(self.there >= set(LEDGER), "a ledger column is not there")

    def type_fits(self, column):
        kind, physical, logical = self.all[column.path], column.physical_type, json.loads(column.logical_type.to_json())
        name = logical.get("Type")
        if isinstance(kind, int):
            return physical == "FIXED_LEN_BYTE_ARRAY" and column.length == kind and name == "None"
        if kind == "int":
            return physical == "INT64" and (name == "None" or name == "Int" and logical["isSigned"] and logical["bitWidth"] == 64)
        if kind == "bool":
            return physical == "BOOLEAN"
        if kind == "timestamp":
            return physical == "INT64" and name == "Timestamp" and logical["isAdjustedToUTC"] and logical["timeUnit"] == "microseconds"
        if kind == "decimal":
            return name == "Decimal" and (logical["precision"], logical["scale"]) == self.decimals[column.path]
        return physical == "BYTE_ARRAY" and name == "String"

    def __iter__(self):
        for batch in self.file.iter_batches(batch_size=4096):
            columns = {name: self.values(batch, name) for name in self.all}
            data = [columns[name] for name in self.kinds]
            yield from zip(*(columns[name] for name in LEDGER), zip(*data) if data else [()] * batch.num_rows)

    def values(self, batch, name):
        if name not in self.there:
            return [None] * batch.num_rows
        array, kind = batch.column(name), self.all[name]
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        if kind == "decimal":
            return [None if v is None else int(v.scaleb(self.decimals[name][1])) for v in array.to_pylist()]
        return array.cast(pa.binary(kind) if isinstance(kind, int) else {int: pa.int64(), bool: pa.bool_(), str: pa.string()}[KINDS[kind]]).to_pylist()


class NdjsonRecords(Records):
    LINE = 1 << 26

    def open(self):
        with open(self.full, "rb") as f:
            self.rows = sum(chunk.count(b"\n") for chunk in iter(lambda: f.read(1 << 20), b""))

    def __iter__(self):
        with open(self.full, "rb") as f:
            while line := f.readline(self.LINE):
                need(line.endswith(b"\n"), "a line is too long or has no end")
                row = parse_json(line, "a line")
                need(row.keys() <= self.all.keys(), f"column {', '.join(row.keys() - self.all.keys())} is not in the schema")
                yield (*(self.value(row.get(name), name) for name in LEDGER), tuple(self.value(row.get(name), name) for name in self.kinds))

    def value(self, value, name):
        kind = self.all[name]
        if value is None:
            return None
        if isinstance(kind, int):
            return unhex(value, kind, name)
        if kind == "decimal":
            need(re.fullmatch("0|-?[1-9][0-9]{0,18}", value, re.ASCII), f"column {name} is not of its kind")
            value = int(value)
        return of_kind(value, kind, name)


# ---- The meta-log (2.1) ----

FIELDS = {
    "schema": {"columns": list, "log": str}, "key": {"vkey": str, "previous": str}, "commit": {"streams": list}, "heartbeat": {},
    "disposal": {"end": int, "policy": str, "stream": str}, "erasure": {"authority": str, "indexes": list, "stream": str}}


def check_leaf(leaf, first=False):
    """The form of one leaf, alone."""
    need(isinstance(leaf, dict) and leaf.get("type") in FIELDS, "of no known type")
    kind = leaf["type"]
    fields = {**FIELDS[kind], "type": str, "time": int}
    if first:
        need(kind == "key", "the first leaf is not a key")
        del fields["previous"]
    need(types_of(leaf) == fields, f"a {kind} leaf without its fields")
    count(leaf["time"], "time", -I64)
    if "stream" in leaf:
        log_of(leaf["stream"])
    if kind == "schema":
        need(LOG.fullmatch(leaf["log"]), "not a log name")
        check_columns(leaf["columns"])
    elif kind == "commit":
        for s in leaf["streams"]:
            need(types_of(s) == {"root": bytes, "size": int, "stream": str} and len(s["root"]) == 32, "a commit leaf without its fields")
            need(log_of(s["stream"]) and count(s["size"], "a size", 1), "not a stream")
        ascending([s["stream"] for s in leaf["streams"]], "streams")
        need(leaf["streams"], "a commit of no stream")
    elif kind == "disposal":
        count(leaf["end"], "end")
    elif kind == "erasure":
        ascending([count(i, "an index") for i in leaf["indexes"]], "indexes")


def ascending(values, what):
    need(all(a < b for a, b in zip(values, values[1:])), f"{what} are not in order")


def check_columns(columns):
    for c in columns:
        decimal = {"precision": int, "scale": int} if c["kind"] == "decimal" else {}
        need(types_of(c) == {"kind": str, "name": str, **decimal} and c["kind"] in KINDS and c["name"] not in LEDGER, "a schema leaf without its fields")
        need(not decimal or 0 < c["precision"] <= 18 and 0 <= c["scale"] < I64, "a decimal's precision or scale")
    need(len({c["name"] for c in columns}) == len(columns), "a column is listed twice")


class MetaLog:
    """All leaves. What the leaves say is only to be believed after `roots` at a trusted checkpoint's size was compared."""
    def __init__(self, data, origin, sizes):
        self.roots, self.keys, self.schemas, self.commits, self.disposed, self.erased = {}, [], {}, {}, {}, {}
        self.origin, self.size, self.time, self.error, at, tree = origin, 0, -I64, None, 0, Tree()
        try:
            while at < len(data):
                start, (leaf, at) = at, cbor_item(data, at)
                self.take(leaf)
                tree.append(0, self.size, sha(b"\0", data[start:at]))
                self.size += 1
                if self.size in sizes:
                    self.roots[self.size] = tree.root()
        except (Fail, *BAD_INPUT) as e:               # told later: a checkpoint that nobody signed comes first
            self.error = Fail("malformed", f"leaf {self.size} of the meta-log: {first_line(e)}", file="meta.cborseq")

    def take(self, leaf):
        check_leaf(leaf, self.size == 0)
        need(self.time <= leaf["time"], "time goes back")
        self.time, kind = leaf["time"], leaf["type"]
        if kind == "key":
            key = Key(leaf["vkey"])
            need(key.name == self.origin, "a key of another origin")
            need(not self.keys or leaf["previous"] == self.keys[-1][1].vkey, "the rotation does not follow the key before it")
            self.keys.append((self.size, key))
        elif kind == "schema":
            before = self.schemas.get(leaf["log"], [])
            need(leaf["columns"][:len(before)] == before, f"a column of {leaf['log']} changed")
            self.schemas[leaf["log"]] = leaf["columns"]
        elif kind == "commit":
            for s in leaf["streams"]:
                need(log_of(s["stream"]) in self.schemas, f"{s['stream']} has no schema")
                commits = self.commits.setdefault(s["stream"], {})
                need(s["size"] > max(commits, default=0), f"{s['stream']} did not grow")
                commits[s["size"]] = s["root"], self.size
        elif kind == "disposal":
            need(leaf["end"] >= self.disposed.get(leaf["stream"], 0), "a disposal goes back")
            self.disposed[leaf["stream"]] = leaf["end"]
        elif kind == "erasure":
            self.erased.setdefault(leaf["stream"], set()).update(leaf["indexes"])

    def accepts(self, note, known):
        """2.2: the key in force at its size has signed, at a rotation the key before it, too, and one of them is known."""
        keys = [(at, key) for at, key in self.keys if at < note.size]
        signers = [key for _, key in (keys[-2:] if keys[-1][0] == note.size - 1 else keys[-1:])]
        return self.roots.get(note.size) == note.root and all(map(note.signed_by, signers)) and any(key.vkey in known for key in signers)

    def follow_keys(self, notes, trusted):
        """Every key that the accepted checkpoints lead to from the trusted one."""
        known, before = {trusted.vkey: trusted}, 0
        while before < len(known):
            before = len(known)
            for note in notes:
                if note.size in self.roots and self.accepts(note, known):
                    known.update((key.vkey, key) for at, key in self.keys if at < note.size)
        return known


def check_meta(meta, notes, trusted):
    """Step 1. The newest checkpoint is the first of `notes`."""
    known = meta.follow_keys(notes, trusted)
    unsigned = [n for n in notes if not any(map(n.signed_by, known.values()))]
    # Where the leaves don't have the root of a signed checkpoint, the key of an unsigned one may be among what is wrong with them.
    if unsigned and all(meta.roots.get(n.size) == n.root for n in notes if n not in unsigned):
        raise Fail("forged", f"{unsigned[0].what} is not signed by a trusted key")
    if meta.error:
        raise meta.error
    for note in notes:
        need(meta.size >= note.size, f"meta.cborseq has {meta.size:,} leaves, {note.what} {note.size:,}", "cut", file="meta.cborseq")
    need(meta.size == notes[0].size, f"meta.cborseq has {meta.size:,} leaves, the checkpoint {notes[0].size:,}", "altered", file="meta.cborseq")
    for note in notes:
        need(meta.roots[note.size] == note.root, f"the meta-log does not have the root of {note.what}", "altered", file="meta.cborseq")
    for note in notes:
        need(meta.accepts(note, known), f"{note.what} is not signed by the keys in force at its size", "forged")
    return known


def check_published(meta, published, known):
    """Step 2"""
    need(any(map(published.signed_by, known.values())), "the published checkpoint is not signed by a trusted key", "forged")
    need(published.size <= meta.size, f"the published checkpoint has {published.size:,} leaves, the bundle {meta.size:,}: "
         "the bundle is older than what was published", "cut")
    need(meta.roots[published.size] == published.root, f"the meta-log does not have the root of the published checkpoint at {published.size:,} leaves", "altered")
    need(meta.accepts(published, known), "the published checkpoint is not signed by the keys in force at its size", "forged")


# ---- Bundle (3) ----

def nodes_of(listed, a, b, what):
    wanted = compact_range(a, b)
    need(isinstance(listed, list) and [(n["level"], n["index"]) for n in listed] == wanted, f"{what} is not the compact range [{a}, {b})")
    return [(level, index, unhex(n["hash"], 32, what)) for (level, index), n in zip(wanted, listed)]


class Stream:
    """An entry of the manifest's `streams`, with what the meta-log says of it."""
    def __init__(self, entry, manifest, meta):
        self.name, self.records, self.erased, self.tree = entry["stream"], 0, 0, Tree()
        need(entry["log"] == log_of(self.name), "manifest.json: stream and log differ", stream=self.name)
        self.commits, self.erasures, self.disposal_end = (d.get(self.name, e) for d, e in ((meta.commits, {}), (meta.erased, ()), (meta.disposed, 0)))
        need(self.commits, "no commit leaf names this stream", "altered", stream=self.name)
        self.columns, self.newest, self.sid = meta.schemas[entry["log"]], max(self.commits), stream_id(meta.origin, self.name)
        self.size, self.first, self.end = (count(entry[f], f) for f in ("size", "first", "end"))
        need(self.first <= self.end <= self.size, "manifest.json: not a range", stream=self.name)
        self.previous = unhex(entry["previous_hash"], 32, "previous_hash")
        need(self.first or self.previous == ZERO, "manifest.json: previous_hash of index 0 is not zero", stream=self.name)
        self.left, self.right = nodes_of(entry["left"], 0, self.first, "left"), nodes_of(entry["right"], self.end, self.size, "right")
        self.files = [self.file(f, manifest["record_format"]) for f in entry["files"]]
        self.disposed, self.agreed, self.last_time, self.rewritten, self.time_back = min(self.first, self.disposal_end), self.first, -I64, None, None

    def file(self, f, extension):
        first, end = count(f["first"], "first"), count(f["end"], "end")
        need(f["path"] == f"streams/{self.name}/{first:012}-{end - 1:012}.{extension}" and first < end, "manifest.json: a file's path does not fit its range", stream=self.name)
        return f["path"], first, end, count(f["bytes"], "bytes"), unhex(f["sha256"], 32, "sha256")

    def check_listed(self, whole):
        """Step 4"""
        def there(condition, first, end, reason):
            need(condition, f"{reason}: records {first}–{end - 1} are absent", "missing", stream=self.name, first=first, last=end - 1)
        there(self.size >= self.newest, self.size, self.newest, f"the stream has {self.newest:,} records, the bundle knows of {self.size:,}")
        need(self.size == self.newest, f"the stream has {self.newest:,} records, the bundle claims {self.size:,}", "altered", stream=self.name)
        there(not whole or self.first <= self.disposal_end, self.disposal_end, self.first, "not disposed of")
        there(not whole or self.end == self.size, self.end, self.size, "the end")
        at = self.first
        for path, first, end, _, _ in self.files:
            there(first <= at, at, first, "no file")
            need(first == at, f"{path} repeats records", "altered", stream=self.name, file=path)
            at = end
        there(at >= self.end, at, self.end, "no file")
        need(at == self.end, "manifest.json: the files have more than the range", stream=self.name)

    def check_records(self, folder):
        """Steps 5 to 7. A failure of step 6 or 7 is only kept, because step 5 of every stream comes before."""
        for node in self.left:
            self.tree.append(*node)
        self.compare(self.first)
        for path, first, end, _, _ in self.files:
            self.check_file(regular_file(folder, path), path, first, end)
        for node in self.right:
            self.tree.append(*node)
        if self.right:
            self.compare(self.size)

    def check_file(self, full, path, first, end):
        index = first
        try:
            rows = (ParquetRecords if path.endswith(".parquet") else NdjsonRecords)(full, self.columns)
            try:
                for record in rows:
                    self.check_record(record, index, end, rows, path)
                    index += 1
                need(index == end, "the file ends too soon", "altered")
            except Fail as e:
                if e.verdict == "altered" and rows.rows < end - first:
                    raise self.gap({record[1] for record in rows}, first, end, path)
                raise
        except Fail as e:
            raise Fail(e.verdict, e.reason, **(e.where or dict(stream=self.name, index=index, file=path)))
        except (*BAD_INPUT, OSError) as e:
            if isinstance(e, OSError) and e.errno is not None:
                raise
            raise Fail("malformed", f"cannot be read: {first_line(e)}", stream=self.name, index=index, file=path)

    def gap(self, there, first, end, path):
        gap = next(i for i in range(first, end) if i not in there)
        last = min((i for i in there if i is not None and gap < i < end), default=end) - 1
        return Fail("missing", "the file does not have them", stream=self.name, first=gap, last=last, file=path)

    def check_record(self, record, index, end, rows, path):
        number, at, recorded_at, salt, stored, erased, values = record
        need(None not in (number, at, recorded_at, stored), "a ledger column is null")
        need(index < end, f"record {at} is beyond the range", "altered")
        need(at == index, f"record {at} stands where record {index} belongs", "altered")
        if erased is not None:
            need(salt is None and all(v is None for v in values), "erased, but has a payload or a salt", "altered")
            need(index in self.erasures, "erased, but no erasure leaf lists it", "altered")
            self.erased += 1
        else:
            need(salt is not None, "no salt")
        payload_hash = erased or sha(salt, rows.payload(values))
        need(leaf_hash(self.sid, index, number, recorded_at, payload_hash, self.previous) == stored, "does not match its hash", "altered")
        if recorded_at < self.last_time and not self.time_back:
            self.time_back = Fail("malformed", "recorded_at goes back", stream=self.name, index=index, file=path)
        self.previous, self.last_time = stored, recorded_at
        self.tree.append(0, index, stored)
        self.records += 1
        self.compare(index + 1)

    def compare(self, size):
        """Step 6, at the size of a commit."""
        if size not in self.commits or self.rewritten:
            return
        root, number = self.commits[size]
        if self.tree.root() == root:
            self.agreed = size
        elif size == self.first:
            self.rewritten = Fail("altered", f"the manifest's left nodes do not give the root of commit {number}", stream=self.name, first=0, last=size - 1)
        else:
            self.rewritten = Fail("altered", f"every record fits its stored hash, but commit {number} has another root at size {size:,}: hashes were rewritten, "
                                  f"the first bad record is at or after {self.agreed:,} and before {size:,}", stream=self.name, first=self.agreed, last=size - 1)

    def check_sums(self, folder):
        """Step 8"""
        for path, _, _, size, digest in self.files:
            h, n = hashlib.sha256(), 0
            with open(regular_file(folder, path), "rb") as f:
                while chunk := f.read(1 << 20):
                    h.update(chunk)
                    n += len(chunk)
            need((n, h.digest()) == (size, digest), "every record is right, but the file is not the listed one, byte for byte", "altered", stream=self.name, file=path)


def read_notes(folder, origin):
    """The checkpoint, then those in checkpoints/ by size."""
    directory = os.path.join(folder, "checkpoints")
    names = sorted(os.listdir(directory), key=lambda n: (len(n), n)) if os.path.isdir(directory) else []
    notes = [Note(read(regular_file(folder, path), 1 << 20), path) for path in ["checkpoint"] + [f"checkpoints/{n}" for n in names]]
    for note, name in zip(notes[1:], names):
        need(str(note.size) == name, f"{note.what} is of size {note.size}")
    for note in notes:
        need(note.origin == origin, f"{note.what} is of another origin")
    return notes


def check_contents(folder, streams, meta, whole):
    """Step 4: what there must be is there, and nothing else."""
    by_name = {s.name: s for s in streams}
    need(len(by_name) == len(streams), "manifest.json: a stream is listed twice")
    for name, commits in meta.commits.items():
        need(name in by_name or not whole, "the stream is absent", "missing", stream=name, first=0, last=max(commits) - 1)
    for stream in streams:
        stream.check_listed(whole)
    listed = {f[0] for s in streams for f in s.files}
    for place, _, files in os.walk(os.path.join(folder, "streams")):
        for name in files:
            path = os.path.relpath(os.path.join(place, name), folder).replace(os.sep, "/")
            need(path in listed or name.startswith("."), f"{path} is not listed in the manifest", "altered", file=path)
    for stream in streams:
        for path, first, end, _, _ in stream.files:
            regular_file(folder, path, stream=stream.name, first=first, last=end - 1)


def check_all_records(folder, streams, say):
    """Steps 5 to 8, with a line for each stream. The first failure of the lowest step is the verdict."""
    failures = {5: [], 6: [], 7: []}
    for s in streams:
        bad = []
        try:
            s.check_records(folder)
            bad = [(step, fail) for step, fail in ((6, s.rewritten), (7, s.time_back)) if fail]
        except Fail as e:
            bad = [(5, e)]
        for step, fail in bad:
            failures[step].append(fail)
        facts = [f"{s.records:,} records" + (f" from {s.first:,}" if s.first else "")] + authority(s.erased, s.disposed) + [f"{len(s.commits):,} commits"]
        say(f"{s.name}: " + (describe(bad[0][1], False) if bad else f"ok: {', '.join(facts)}"))
    for fail in failures[5] + failures[6] + failures[7]:
        raise fail
    for s in streams:
        s.check_sums(folder)


def authority(erased, disposed):
    return [f"{n:,} {what} with authority" for n, what in ((erased, "erased"), (disposed, "disposed")) if n]


def verify_bundle(folder, key, published, complete, say):
    if not os.path.isfile(os.path.join(folder, "manifest.json")):
        raise CannotWork(f"{folder} is not a bundle: it has no manifest.json")
    manifest = parse_json(read(regular_file(folder, "manifest.json")), "manifest.json")
    need(manifest["format"] == "muniment-bundle/1", "manifest.json: not muniment-bundle/1")
    need(manifest["scope"] in ("all", "selection") and manifest["record_format"] in ("parquet", "ndjson"), "manifest.json: scope or record_format")
    notes = read_notes(folder, manifest["origin"])
    sizes = {n.size for n in notes + [published] if n}
    meta = MetaLog(read(regular_file(folder, "meta.cborseq"), 1 << 32), notes[0].origin, sizes)
    known = check_meta(meta, notes, key)
    if published:
        check_published(meta, published, known)
    for log in {**manifest["columns"], **{s["log"]: None for s in manifest["streams"]}}:                # step 3
        need(log in meta.schemas and manifest["columns"].get(log) == meta.schemas[log], f"the manifest's columns of {log} are not those of its schema leaf", "altered")
    whole = complete or manifest["scope"] == "all"
    streams = [Stream(entry, manifest, meta) for entry in manifest["streams"]]
    check_contents(folder, streams, meta, whole)
    check_all_records(folder, streams, say)
    total = {what: sum(getattr(s, what) for s in streams) for what in ("records", "erased", "disposed")}
    text = ", ".join([f"{len(streams):,} streams, {total['records']:,} records"] + authority(total["erased"], total["disposed"]))
    text += "; scope all" if whole else "; scope selection: other records may exist"
    return text, dict(total, streams=len(streams), scope="all" if whole else "selection", size=meta.size, root=notes[0].root.hex())


# ---- Proof (4) ----

def included(entry, kind, note, verdict="altered"):
    """A leaf and its number, if it is in the checkpoint."""
    raw, number = unbase64(entry["leaf"], f"the {kind} leaf"), count(entry["number"], "number")
    leaf = cbor_map(raw, f"the {kind} leaf")
    check_leaf(leaf)
    need(leaf["type"] == kind, f"not a {kind} leaf")
    need(root_from_path(sha(b"\0", raw), number, note.size, entry["path"]) == note.root, f"the {kind} leaf is not in its checkpoint", verdict)
    return leaf, number


def check_rotations(rotations, note, trusted):
    """Each rotation links to the one before; the trusted key is in the chain, and the last key signs the checkpoint."""
    chain, last = [], 0
    for r in rotations:
        step = Note(r["checkpoint"].encode(), "the checkpoint of a rotation")
        need(step.origin == note.origin and step.size == r["number"] + 1 > last, "not a rotation")
        leaf, _ = included(r, "key", step, "forged")
        old, new = Key(leaf["previous"]), Key(leaf["vkey"])
        need(not chain or chain[-1].vkey == old.vkey, "a rotation does not follow the one before", "forged")
        need(step.signed_by(old) and step.signed_by(new), "a rotation is not signed by both keys", "forged")
        chain, last = (chain or [old]) + [new], step.size
    chain = chain or [trusted]
    need(trusted.vkey in [k.vkey for k in chain], "the trusted key is not in the chain of rotations", "forged")
    need(note.signed_by(chain[-1]) and note.size >= last, "the checkpoint is not signed by a trusted key", "forged")


def verify_proof(proof, key):
    need(proof["format"] == "muniment-proof/1", "not muniment-proof/1")
    stream, origin, log = proof["stream"], proof["origin"], proof["log"]
    need(log_of(stream) == log, "stream and log differ")
    index, number, recorded_at = (count(proof[f], f, low) for f, low in (("stream_index", 0), ("id", -I64), ("recorded_at", -I64)))
    note = Note(proof["checkpoint"].encode(), "the checkpoint")
    need(note.origin == origin, "the checkpoint is of another origin")
    check_rotations(proof["rotations"], note, key)
    where = dict(stream=stream, index=index)
    try:
        commit, commit_number = included(proof["commit"], "commit", note)
        schema, schema_number = included(proof["schema"], "schema", note)
        need(schema["log"] == log and schema_number < commit_number, "the schema leaf is of another log or after the commit", "altered")
        grown = {s["stream"]: s for s in commit["streams"]}
        need(stream in grown, "the commit leaf does not name the stream", "altered")
        payload = unbase64(proof["payload"], "the payload")
        payload_hash = sha(unhex(proof["salt"], 16, "salt"), payload)
        found = leaf_hash(stream_id(origin, stream), index, number, recorded_at, payload_hash, unhex(proof["previous_hash"], 32, "previous_hash"))
        need(found == unhex(proof["blockchain_hash"], 32, "blockchain_hash"), "does not match its hash", "altered")
        need(root_from_path(found, index, grown[stream]["size"], proof["stream_path"]) == grown[stream]["root"], "is not in the committed tree", "altered")
        columns, record = {c["name"]: c for c in schema["columns"]}, cbor_map(payload, "the payload")
        for name, value in record.items():
            need(name in columns, f"column {name} is not in the schema leaf")
            of_kind(value, columns[name]["kind"], name)
    except Fail as e:
        raise Fail(e.verdict, e.reason, **where)
    shown = {"log": log, "stream": stream, "stream_index": index, "id": number, "recorded_at": recorded_at, "payload": record,
             "columns": [c for c in schema["columns"] if c["name"] in record]}
    return f"record {index} of {stream}, in commit {commit_number} of {origin}", dict(where, records=1, record=shown, size=note.size, root=note.root.hex())


# ---- Command line ----

def first_line(e):
    return (str(e).splitlines() or [type(e).__name__])[0][:200]


def describe(fail, with_stream=True):
    w = fail.where
    parts = [w.get("stream") if with_stream else None, f"record {w['index']}" if "index" in w else f"records {w['first']}–{w['last']}" if "first" in w else None,
             f"in {w['file']}" if "file" in w else None]
    place = " ".join(p for p in parts if p)
    return f"FAILED {fail.verdict}: " + (f"{place}: " if place else "") + fail.reason


def clean(text):
    """No control character of a hostile file reaches the terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def load_input(path):
    if not os.path.isfile(path):
        raise CannotWork(f"{path} is not a file")
    return read(path)


def run(args, say):
    try:
        key = Key((load_input(args.key).decode("utf-8") if os.path.isfile(args.key) else args.key).strip())
    except (Fail, *BAD_INPUT) as e:
        raise CannotWork(f"--key: {first_line(e)}")
    if args.note:
        note = Note(load_input(args.note), "the checkpoint")
        need(note.signed_by(key), "the checkpoint is not signed by the trusted key", "forged")
        return f"checkpoint of {note.origin}, {note.size:,} leaves, root {note.root.hex()}", dict(size=note.size, root=note.root.hex())
    if args.proof:
        text, facts = verify_proof(parse_json(load_input(args.proof), "the proof"), key)
        say(json.dumps(facts["record"], indent=2))
        return text, facts
    if not os.path.isdir(args.bundle):
        raise CannotWork(f"{args.bundle} is not a folder")
    published = Note(load_input(args.checkpoint), "the published checkpoint") if args.checkpoint else None
    return verify_bundle(args.bundle, key, published, args.complete, say)


def main(argv=None):
    parser = argparse.ArgumentParser(description="Verifies a Muniment bundle, proof or checkpoint.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("bundle", nargs="?", help="a bundle's folder")
    what.add_argument("--proof", help="a proof file")
    what.add_argument("--note", help="a checkpoint file, alone")
    parser.add_argument("--key", required=True, help="the trusted verifier key, or a file that holds it")
    parser.add_argument("--checkpoint", help="a published checkpoint the bundle must not be older than")
    parser.add_argument("--complete", action="store_true", help="every record must be there, even if the bundle calls itself a selection")
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    args = parser.parse_args(argv)
    result = {"ok": False, "verdict": None, "stream": None, "index": None, "first": None, "last": None, "file": None, "reason": None, "records": 0}

    def say(text):
        if not args.json:
            print("\n".join(clean(line) for line in text.split("\n")))
    try:
        try:
            text, facts = run(args, say)
            result.update(facts, ok=True, verdict="valid")
            code, line = 0, f"valid: {text}"
        except BAD_INPUT as e:
            raise Fail("malformed", f"cannot be understood: {type(e).__name__}: {first_line(e)}")
    except Fail as e:
        result.update(e.where, verdict=e.verdict, reason=e.reason)
        code, line = 1, describe(e)
    except (CannotWork, OSError) as e:
        result.update(reason=str(e))
        code, line = 2, f"could not verify: {e}"
    say(line)
    if args.json:
        print(json.dumps(result))
    return code


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")
    try:                                # a small hostile file may unpack to any size: running out of memory is then an error, not a stalled machine
        import resource
        resource.setrlimit(resource.RLIMIT_AS, (os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4,) * 2)
    except (ImportError, ValueError, OSError):
        pass
    sys.exit(main())
