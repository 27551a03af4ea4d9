#!/usr/bin/env python3
"""An independent offline verifier for Muniment bundles, proofs and checkpoints.

It was written from docs/format.md alone and shares no code with the rest of the project. The numbers in comments are sections of that document.

    muniment_verify.py BUNDLE --key VKEY_OR_FILE [--checkpoint PUBLISHED_NOTE_FILE] [--complete]
    muniment_verify.py --proof PROOF.json --key VKEY_OR_FILE
    muniment_verify.py --note CHECKPOINT_FILE --key VKEY_OR_FILE

Exit code 0: nothing failed; 1: something failed; 2: the verifier could not do its work.
"""
import argparse, hashlib, json, os, sys

from muniment_read import (BAD_INPUT, I64, KINDS, LEDGER, LOG, Columns, Fail, Key, Note, Tree, cbor_item, cbor_map, compact_range, count, first_line,
    has_types, leaf_hash, log_of, need, of_kind, parse_json, read, regular_file, root_from_path, rows, sha, stream_id, unbase64, unhex)


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
    need(has_types(leaf, **fields), f"a {kind} leaf without its fields")
    count(leaf["time"], "time", -I64)
    if "stream" in leaf:
        log_of(leaf["stream"])
    if kind == "schema":
        need(LOG.fullmatch(leaf["log"]), "not a log name")
        check_columns(leaf["columns"])
    elif kind == "commit":
        for s in leaf["streams"]:
            need(has_types(s, root=bytes, size=int, stream=str) and len(s["root"]) == 32, "a commit leaf without its fields")
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
        need(has_types(c, kind=str, name=str, **decimal) and c["kind"] in KINDS and c["name"] not in LEDGER, "a schema leaf without its fields")
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
                need(s["size"] > next(reversed(commits), 0), f"{s['stream']} did not grow")
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
    wanted = list(compact_range(a, b))
    need(isinstance(listed, list) and [(n["level"], n["index"]) for n in listed] == wanted, f"{what} is not the compact range [{a}, {b})")
    return [(level, index, unhex(n["hash"], 32, what)) for (level, index), n in zip(wanted, listed)]


class Stream:
    """An entry of the manifest's `streams`, with what the meta-log says of it."""
    def __init__(self, entry, manifest, meta):
        self.name, self.records, self.erased, self.tree = entry["stream"], 0, 0, Tree()
        need(entry["log"] == log_of(self.name), "manifest.json: stream and log differ", stream=self.name)
        self.commits, self.erasures, self.disposal_end = (d.get(self.name, e) for d, e in ((meta.commits, {}), (meta.erased, ()), (meta.disposed, 0)))
        need(self.commits, "no commit leaf names this stream", "altered", stream=self.name)
        self.columns, self.newest, self.sid = Columns(meta.schemas[entry["log"]]), next(reversed(self.commits)), stream_id(meta.origin, self.name)
        self.size, self.first, self.end = (count(entry[f], f) for f in ("size", "first", "end"))
        need(self.first <= self.end <= self.size, "manifest.json: not a range", stream=self.name)
        self.previous = unhex(entry["previous_hash"], 32, "previous_hash")
        need(self.first or self.previous == bytes(32), "manifest.json: previous_hash of index 0 is not zero", stream=self.name)
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
            try:
                for record in rows(full, self.columns):
                    self.check_record(record, index, end, path)
                    index += 1
                need(index == end, "the file ends too soon", "altered")
            except Fail as e:
                there = [record[1] for record in rows(full, self.columns)] if e.verdict == "altered" else range(first, end)
                raise self.gap(set(there), first, end, path) if len(there) < end - first else e
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

    def check_record(self, record, index, end, path):
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
        payload_hash = erased or sha(salt, self.columns.payload(values))
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
            full = regular_file(folder, path)
            with open(full, "rb") as f:
                same = (os.path.getsize(full), hashlib.file_digest(f, "sha256").digest()) == (size, digest)
            need(same, "every record is right, but the file is not the listed one, byte for byte", "altered", stream=self.name, file=path)


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
        need(name in by_name or not whole, "the stream is absent", "missing", stream=name, first=0, last=next(reversed(commits)) - 1)
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
    need(os.path.isfile(os.path.join(folder, "manifest.json")), f"{folder} is not a bundle: it has no manifest.json", None)
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

def describe(fail, with_stream=True):
    w = fail.where
    parts = [w.get("stream") if with_stream else None, f"record {w['index']}" if "index" in w else f"records {w['first']}–{w['last']}" if "first" in w else None,
             f"in {w['file']}" if "file" in w else None]
    place = " ".join(p for p in parts if p)
    return f"FAILED {fail.verdict}: " + (f"{place}: " if place else "") + fail.reason


def clean(text):
    """No control character of a hostile file reaches the terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def run(args, say):
    try:
        key = Key((read(args.key).decode("utf-8") if os.path.isfile(args.key) else args.key).strip())
    except (Fail, *BAD_INPUT) as e:
        raise Fail(None, f"--key: {first_line(e)}")
    if args.note:
        note = Note(read(args.note), "the checkpoint")
        need(note.signed_by(key), "the checkpoint is not signed by the trusted key", "forged")
        return f"checkpoint of {note.origin}, {note.size:,} leaves, root {note.root.hex()}", dict(size=note.size, root=note.root.hex())
    if args.proof:
        text, facts = verify_proof(parse_json(read(args.proof), "the proof"), key)
        say(json.dumps(facts["record"], indent=2))
        return text, facts
    published = Note(read(args.checkpoint), "the published checkpoint") if args.checkpoint else None
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
    except (Fail, OSError) as e:
        e = e if isinstance(e, Fail) else Fail(None, str(e))
        result.update(e.where, verdict=e.verdict, reason=e.reason)
        code, line = (1, describe(e)) if e.verdict else (2, f"could not verify: {e}")
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
