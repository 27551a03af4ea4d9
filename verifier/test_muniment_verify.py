"""Builds small bundles and proofs with a writer of its own, damages them in every way, and asserts the verdict. Run: python3 -m unittest"""
import base64, contextlib, copy, decimal, hashlib, hmac, io, json, os, random, shutil, struct, tempfile, unittest

import cbor2
import pyarrow as pa
import pyarrow.parquet as pq
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import muniment_verify

ORIGIN, A, B = "audit.example.org/1c0f", "sys_audit_log/7y", "auth_audit_log/5y"
COLUMNS = [("table_name", "text"), ("old_value", "json"), ("address", "inet"), ("session", "uuid"), ("rows", "int"), ("ok", "bool"),
           ("happened_at", "timestamp"), ("amount", "decimal"), ("a_column_with_a_rather_long_name", "text")]
ARROW = {"text": pa.string(), "json": pa.string(), "inet": pa.string(), "uuid": pa.string(), "int": pa.int64(), "bool": pa.bool_(),
         "timestamp": pa.timestamp("us", "UTC"), "decimal": pa.decimal128(18, 6)}
T0 = 1767225600000000


# ---- The writer: straight from the definitions, recursive where the verifier is not ----

def sha(data):
    return hashlib.sha256(data).digest()


def mth(leaves):
    if len(leaves) < 2:
        return leaves[0] if leaves else sha(b"")
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return sha(b"\1" + mth(leaves[:k]) + mth(leaves[k:]))


def path(m, leaves):
    if len(leaves) < 2:
        return []
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return path(m, leaves[:k]) + [mth(leaves[k:])] if m < k else path(m - k, leaves[k:]) + [mth(leaves[:k])]


def nodes(leaves, a, b):
    result = []
    while a < b:
        level = max(n for n in range(40) if a % (1 << n) == 0 and a + (1 << n) <= b)
        result.append({"level": level, "index": a >> level, "hash": mth(leaves[a:a + (1 << level)]).hex()})
        a += 1 << level
    return result


class Signer:
    def __init__(self, seed, name=ORIGIN):
        self.private = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        public = b"\1" + self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.hash = sha(name.encode() + b"\n" + public)[:4]
        self.vkey = f"{name}+{self.hash.hex()}+{base64.b64encode(public).decode()}"

    def line(self, text):
        return f"\u2014 {ORIGIN} {base64.b64encode(self.hash + self.private.sign(text.encode())).decode()}\n"


def note(leaves, *signers, root=None):
    text = f"{ORIGIN}\n{len(leaves)}\n{base64.b64encode(root or mth([sha(bytes(1) + leaf) for leaf in leaves])).decode()}\n"
    return text + "\n" + "".join(s.line(text) for s in signers)


K0, K1, EVIL = Signer(1), Signer(2), Signer(3)


def encode(leaf):
    return cbor2.dumps(leaf, canonical=True)


def listed(columns):
    return [{"name": n, "kind": k, **({"precision": 18, "scale": 6} if k == "decimal" else {})} for n, k in columns]


def schema(log, columns, time=1):
    return encode({"type": "schema", "time": time, "log": log, "columns": columns if isinstance(columns[0], dict) else listed(columns)})


def make_record(stream, i):
    data = {"table_name": f"tab\u00e9 {i}", "old_value": '{"a": 1.50}', "rows": [0, -1, 2**63 - 1, -2**63, 23, 24, 256][i % 7], "ok": i % 2 == 0, "happened_at": T0 - i,
            "amount": [0, 1500000, -123456789012, 2**53][i % 4], "address": "2001:db8::/32", "session": "0d6d7a0e-4b3c-4b7a-9f0b-0b3f3f3f3f3f",
            "a_column_with_a_rather_long_name": "x" * i}
    if i % 3 == 0:
        del data["rows"], data["ok"], data["a_column_with_a_rather_long_name"]
    key = hashlib.sha256(stream.encode()).digest()
    return {"id": 2 * i + 1, "stream_index": i, "recorded_at": T0 + i // 2, "data": data,
            "salt": hmac.digest(key, struct.pack(">q", 2 * i + 1), "sha256")[:16], "erased_payload_hash": None}


def seal(stream, records, first=0, previous=bytes(32)):
    sid = sha(ORIGIN.encode() + b"\0" + stream.encode())[:16]
    for r in records[first:]:
        payload_hash = r["erased_payload_hash"] or sha(r["salt"] + encode(r["data"]))
        header = b"\1" + sid + struct.pack(">Qqq", r["stream_index"], r["id"], r["recorded_at"]) + payload_hash + previous
        assert len(header) == 105
        previous = r["blockchain_hash"] = sha(b"\0" + header)


class World:
    """Two streams, schemas at leaves 1 and 2, a rotation at leaf 5, an erasure of A/4, a disposal of B below 2."""
    def __init__(self):
        self.streams = {A: [make_record(A, i) for i in range(10)], B: [make_record(B, i) for i in range(5)]}
        for name, records in self.streams.items():
            seal(name, records)
        self.hashes = {name: [r["blockchain_hash"] for r in records] for name, records in self.streams.items()}
        erased = self.streams[A][4]
        erased["erased_payload_hash"] = sha(erased["salt"] + encode(erased["data"]))
        erased["data"], erased["salt"] = {}, None
        self.leaves = [
            encode({"type": "key", "time": 1, "vkey": K0.vkey}),
            schema("sys_audit_log", COLUMNS),
            schema("auth_audit_log", COLUMNS),
            self.commit(2, {A: 3, B: 2}),
            encode({"type": "heartbeat", "time": 3}),
            encode({"type": "key", "time": 4, "vkey": K1.vkey, "previous": K0.vkey}),
            self.commit(5, {A: 7}),
            encode({"type": "erasure", "time": 6, "stream": A, "indexes": [4], "authority": "order 12"}),
            encode({"type": "disposal", "time": 7, "stream": B, "end": 2, "policy": "5y"}),
            self.commit(8, {A: 10, B: 5})]
        self.sign()
        self.ranges = {A: [(0, 4), (4, 10)], B: [(2, 5)]}       # the files
        self.scope, self.format = "all", "parquet"

    def reseal(self, name):
        """Makes the log of the records as they are now."""
        seal(name, self.streams[name])
        self.hashes[name] = [r["blockchain_hash"] for r in self.streams[name]]
        self.leaves[3], self.leaves[6], self.leaves[9] = self.commit(2, {A: 3, B: 2}), self.commit(5, {A: 7}), self.commit(8, {A: 10, B: 5})
        self.sign()

    def sign(self):
        self.notes = {"checkpoint": note(self.leaves, K1), "checkpoints/6": note(self.leaves[:6], K0, K1)}

    def commit(self, time, sizes):
        return encode({"type": "commit", "time": time, "streams": [{"stream": s, "size": sizes[s], "root": mth(self.hashes[s][:sizes[s]])} for s in sorted(sizes)]})

    def write(self, folder, edit_manifest=None):
        manifest = {"format": "muniment-bundle/1", "origin": ORIGIN, "created_at": T0, "vkey": K1.vkey, "scope": self.scope, "record_format": self.format,
                    "columns": {s.split("/")[0]: listed(COLUMNS) for s in (A, B)}, "streams": []}
        for name, ranges in self.ranges.items():
            hashes, first, end = self.hashes[name], ranges[0][0], ranges[-1][1]
            entry = {"stream": name, "log": name.split("/")[0], "size": len(hashes), "first": first, "end": end,
                     "previous_hash": (hashes[first - 1] if first else bytes(32)).hex(),
                     "left": nodes(hashes, 0, first), "right": nodes(hashes, end, len(hashes)), "files": []}
            for a, b in ranges:
                file = f"streams/{name}/{a:012}-{b - 1:012}.{self.format}"
                self.write_records(os.path.join(folder, file), [r for r in self.streams[name] if a <= r.get("place", r["stream_index"]) < b])
                entry["files"].append({"path": file, "first": a, "end": b, **self.sum(os.path.join(folder, file))})
            manifest["streams"].append(entry)
        if edit_manifest:
            edit_manifest(manifest)
        for file, text in {**self.notes, "manifest.json": json.dumps(manifest)}.items():
            os.makedirs(os.path.dirname(os.path.join(folder, file)), exist_ok=True)
            with open(os.path.join(folder, file), "w", encoding="utf-8") as f:
                f.write(text)
        with open(os.path.join(folder, "meta.cborseq"), "wb") as f:
            f.write(b"".join(self.leaves))

    @staticmethod
    def sum(full):
        with open(full, "rb") as f:
            data = f.read()
        return {"bytes": len(data), "sha256": sha(data).hex()}

    def write_records(self, full, records):
        os.makedirs(os.path.dirname(full), exist_ok=True)
        if self.format == "ndjson":
            with open(full, "w", encoding="utf-8") as f:
                for r in records:
                    data = {n: (str(v) if n == "amount" else v) for n, v in r["data"].items()}
                    hashes = {h: r[h] and r[h].hex() for h in ("salt", "blockchain_hash", "erased_payload_hash")}
                    f.write(json.dumps({**{k: r[k] for k in ("id", "stream_index", "recorded_at")}, **data, **hashes}, ensure_ascii=False) + "\n")
            return
        fields = [("id", pa.int64()), ("stream_index", pa.int64()), ("recorded_at", ARROW["timestamp"])] + [(n, ARROW[k]) for n, k in COLUMNS] + \
                 [("salt", pa.binary(16)), ("blockchain_hash", pa.binary(32)), ("erased_payload_hash", pa.binary(32))]
        rows = [{**r["data"], **{k: v for k, v in r.items() if k != "data"}} for r in records]
        for row in rows:
            if "amount" in row:
                row["amount"] = decimal.Decimal(row["amount"]).scaleb(-6)
        pq.write_table(pa.table({n: pa.array([row.get(n) for row in rows], t) for n, t in fields}), full, compression="zstd", row_group_size=3)

    def proof(self, stream, i, rotated=True):
        hashes, record, metas = self.hashes[stream], self.streams[stream][i], [sha(bytes(1) + leaf) for leaf in self.leaves]
        number = next(n for n in (3, 6, 9) if any(s["stream"] == stream and s["size"] > i for s in cbor2.loads(self.leaves[n])["streams"]))
        size = next(s["size"] for s in cbor2.loads(self.leaves[number])["streams"] if s["stream"] == stream)
        rotation = {"checkpoint": self.notes["checkpoints/6"], "number": 5, "leaf": b64(self.leaves[5]), "path": [h.hex() for h in path(5, metas[:6])]}
        return {"format": "muniment-proof/1", "origin": ORIGIN, "log": stream.split("/")[0], "stream": stream, "stream_index": i, "id": record["id"],
                "recorded_at": record["recorded_at"], "payload": b64(encode(record["data"])), "salt": record["salt"].hex(),
                "previous_hash": (hashes[i - 1] if i else bytes(32)).hex(), "blockchain_hash": hashes[i].hex(),
                "stream_path": [h.hex() for h in path(i, hashes[:size])],
                "commit": {"number": number, "leaf": b64(self.leaves[number]), "path": [h.hex() for h in path(number, metas)]},
                "schema": {"number": 1 + (stream == B), "leaf": b64(self.leaves[1 + (stream == B)]), "path": [h.hex() for h in path(1 + (stream == B), metas)]},
                "checkpoint": self.notes["checkpoint"], "rotations": [rotation] if rotated else []}


def b64(data):
    return base64.b64encode(data).decode()


# ---- The tests ----

class Case(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.bundle = os.path.join(self.folder, "bundle")
        self.world = World()

    def run_tool(self, *args, key=K0):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = muniment_verify.main([*args, "--key", key.vkey if isinstance(key, Signer) else key, "--json"])
        result = json.loads(out.getvalue())
        self.assertEqual(result["ok"], code == 0)
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            self.assertEqual(code, muniment_verify.main([*args, "--key", key.vkey if isinstance(key, Signer) else key]))
        last = text.getvalue().splitlines()[-1]
        self.assertTrue(last.startswith("valid: " if code == 0 else f"FAILED {result['verdict']}: " if code == 1 else "could not verify: "), last)
        self.lines = text.getvalue().splitlines()
        return code, result

    def check(self, verdict, *args, key=K0, write=True, edit=None, **expected):
        if write:
            self.world.write(self.bundle, edit)
        code, result = self.run_tool(self.bundle, *args, key=key)
        self.assertEqual((result["verdict"], code), (verdict, 0 if verdict == "valid" else 1), result)
        for name, value in expected.items():
            self.assertEqual(result[name], value, result)
        return result

    def put(self, name, data):
        full = os.path.join(self.folder, name)
        with open(full, "wb") as f:
            f.write(data if isinstance(data, bytes) else data.encode())
        return full


class Good(Case):
    def test_both_formats(self):
        for form in ("parquet", "ndjson"):
            self.world.format = form
            shutil.rmtree(self.bundle, ignore_errors=True)
            self.check("valid", records=13, streams=2, erased=1, disposed=2, size=10)
            self.assertEqual(self.lines[-1], "valid: 2 streams, 13 records, 1 erased with authority, 2 disposed with authority; scope all")
            self.assertEqual(len(self.lines), 3)

    def test_key_before_and_after_the_rotation(self):
        self.check("valid", key=K0)
        self.check("valid", key=K1)
        self.check("valid", key=self.put("key", K1.vkey + "\n"))
        self.check("forged", key=EVIL)

    def test_published(self):
        for n, signers in ((2, [K0]), (6, [K0, K1]), (7, [K1]), (10, [K1])):
            self.check("valid", "--checkpoint", self.put("published", note(self.world.leaves[:n], *signers)))

    def test_selection(self):
        self.world.scope, self.world.ranges = "selection", {A: [(5, 8)]}
        result = self.check("valid", records=3, scope="selection")
        self.assertIn("scope selection", self.lines[-1])
        self.check("missing", "--complete")

    def test_everything_disposed(self):
        self.world.leaves[8] = encode({"type": "disposal", "time": 7, "stream": B, "end": 5, "policy": "5y"})
        self.world.notes["checkpoint"] = note(self.world.leaves, K1)
        self.world.ranges[B] = [(5, 5)]
        self.check("valid", records=10, disposed=5, edit=lambda m: (m["streams"][1].update(files=[]), shutil.rmtree(os.path.join(self.bundle, "streams", B))))

    def test_other_sizes(self):
        """Every split of a longer stream, so that compact ranges of all shapes are met."""
        world = self.world
        world.streams[B] = [make_record(B, i) for i in range(21)]
        seal(B, world.streams[B])
        world.hashes[B] = [r["blockchain_hash"] for r in world.streams[B]]
        world.leaves[8] = encode({"type": "heartbeat", "time": 7})
        world.leaves[9] = world.commit(8, {A: 10, B: 13})
        world.leaves.append(world.commit(9, {B: 21}))
        world.leaves[3] = world.commit(2, {A: 3, B: 2})
        world.notes = {"checkpoint": note(world.leaves, K1), "checkpoints/6": note(world.leaves[:6], K0, K1)}
        world.scope, world.format = "selection", "ndjson"
        for first in range(21):
            for end in range(first + 1, 22):
                shutil.rmtree(self.bundle, ignore_errors=True)
                world.ranges = {B: [(first, end)]}
                self.check("valid", records=end - first)


class Damaged(Case):
    """Each `check` writes valid files with right sums in the manifest: nothing but the signed hashes can tell."""
    def both(self, damage, verdict, **expected):
        for form in ("parquet", "ndjson"):
            self.world = World()
            self.world.format = form
            damage(self.world)
            shutil.rmtree(self.bundle, ignore_errors=True)
            self.check(verdict, **expected)

    def test_flipped_values(self):
        for column, value in (("table_name", "other"), ("old_value", '{"a": 1.5}'), ("rows", 25), ("ok", True), ("happened_at", T0), ("amount", 1), ("session", None)):
            def damage(world):
                world.streams[A][5]["data"][column] = value
                if value is None:
                    del world.streams[A][5]["data"][column]
            self.both(damage, "altered", stream=A, index=5)
            self.assertIn("record 5 in streams/", self.lines[-1])

    def test_ledger_columns(self):
        for column, value in (("id", 12), ("recorded_at", T0 + 3), ("salt", bytes(16)), ("blockchain_hash", bytes(32))):
            self.both(lambda world: world.streams[A][5].update({column: value}), "altered", stream=A, index=5)

    def test_null_ledger_columns(self):
        self.both(lambda world: world.streams[A][5].update(salt=None), "malformed", stream=A, index=5)
        self.both(lambda world: world.streams[A][5].update(blockchain_hash=None), "malformed", stream=A, index=5)

    def test_removed(self):
        self.both(lambda world: world.streams[A].pop(5), "missing", stream=A, first=5, last=5)

    def test_removed_last(self):
        self.both(lambda world: world.streams[A].pop(), "missing", stream=A, first=9, last=9)

    def test_removed_and_renumbered(self):
        def damage(world):
            world.streams[A].pop(5)
            for i, r in enumerate(world.streams[A]):
                r["stream_index"] = i
        self.both(damage, "missing", stream=A, first=9, last=9)

    def test_inserted(self):
        def damage(world):
            world.streams[A].insert(6, copy.deepcopy(world.streams[A][5]))
        self.both(damage, "altered", stream=A, index=6)

    def test_appended(self):
        self.both(lambda world: world.streams[A].append(dict(make_record(A, 10), blockchain_hash=bytes(32), place=9)), "altered", stream=A, index=10)

    def test_swapped(self):
        def damage(world):
            world.streams[A][5:7] = reversed(world.streams[A][5:7])
        self.both(damage, "altered", stream=A, index=5)

    def test_swapped_and_renumbered(self):
        def damage(world):
            a, b = world.streams[A][5:7]
            a["stream_index"], b["stream_index"] = 6, 5
            world.streams[A][5:7] = b, a
        self.both(damage, "altered", stream=A, index=5)

    def test_erased_without_authority(self):
        def damage(world):
            r = world.streams[A][5]
            r["erased_payload_hash"] = sha(r["salt"] + encode(r["data"]))
            r["data"] = {}
        self.both(damage, "altered", stream=A, index=5)

    def test_erased_with_a_made_up_payload(self):
        self.both(lambda world: world.streams[A][4]["data"].update(table_name="made up"), "altered", stream=A, index=4)

    def test_erased_but_with_data_or_salt(self):
        for column, value in (("table_name", "tab\u00e9 4"), ("ok", True)):
            self.both(lambda world: world.streams[A][4]["data"].update({column: value}), "altered", stream=A, index=4)
        self.both(lambda world: world.streams[A][4].update(salt=make_record(A, 4)["salt"]), "altered", stream=A, index=4)

    def test_listed_as_erased_but_with_its_payload(self):
        def damage(world):
            world.streams[A][4] = dict(make_record(A, 4), blockchain_hash=world.hashes[A][4])
        self.both(damage, "valid", erased=0)

    def test_too_few_rows(self):
        """The first index that is not there is missing, even if a record before it is altered, too."""
        def damage(world):
            world.streams[A][4:6] = reversed(world.streams[A][4:6])
            world.streams[A][6]["data"]["table_name"] = "other"
            del world.streams[A][7:9]
        self.both(damage, "missing", stream=A, first=7, last=8)

    def test_time_goes_back(self):
        """Every hash is right, but a recorded_at is before the one before it."""
        self.world.streams[A][8]["recorded_at"] = T0
        self.world.reseal(A)
        self.check("malformed", stream=A, index=8)
        self.world.streams[B][3]["data"]["table_name"] = "other"       # step 5 comes first
        shutil.rmtree(self.bundle)
        self.check("altered", stream=B, index=3)

    def test_rewritten_chain(self):
        """The value, and every hash after it, too. Commits are at 3, 7 and 10: record 5 is between 3 and 7."""
        def damage(world):
            world.streams[A][5]["data"]["table_name"] = "other"
            seal(A, world.streams[A], 5, world.streams[A][4]["blockchain_hash"])
        self.both(damage, "altered", stream=A, index=None, first=3, last=6)

    def test_rewritten_tail(self):
        def damage(world):
            world.streams[A][8]["data"]["table_name"] = "other"
            seal(A, world.streams[A], 8, world.streams[A][7]["blockchain_hash"])
        self.both(damage, "altered", stream=A, first=7, last=9)

    def test_step_five_before_six(self):
        """A rewritten chain in one stream, a flipped value in the other: the flipped value is the verdict, both have a line."""
        def damage(world):
            world.streams[A][5]["data"]["table_name"] = "other"
            seal(A, world.streams[A], 5, world.streams[A][4]["blockchain_hash"])
            world.streams[B][3]["data"]["table_name"] = "other"
        self.both(damage, "altered", stream=B, index=3)
        self.assertEqual([line.split(":")[0] for line in self.lines], [A, B, "FAILED altered"])

    def test_manifest_edits(self):
        def stream(i, **fields):
            return lambda m: m["streams"][i].update(fields)

        def columns(**fields):
            return lambda m: m["columns"]["sys_audit_log"][0].update(fields)
        for edit, verdict in (
                (stream(0, previous_hash="11" * 32), "malformed"), (stream(1, previous_hash="11" * 32), "altered"), (stream(0, size=11), "malformed"),
                (stream(0, size=2**64), "malformed"), (stream(0, size=-1), "malformed"), (stream(0, size=2**62), "malformed"), (stream(0, size="10"), "malformed"),
                (stream(1, left=[]), "malformed"), (stream(1, left=[{"level": 1, "index": 0, "hash": "11" * 32}]), "altered"), (stream(0, files=[]), "missing"),
                (stream(0, stream="../x/7y", log="../x"), "altered"), (stream(0, log="auth_audit_log"), "malformed"),
                (lambda m: m["streams"][0]["files"][1].update(path="../../x"), "malformed"), (lambda m: m["streams"][0]["files"].pop(), "missing"),
                (lambda m: m["streams"][0]["files"].pop(0), "missing"), (lambda m: m["streams"][0]["files"].reverse(), "missing"),
                (lambda m: m["streams"].pop(), "missing"), (lambda m: m["streams"].append(m["streams"][0]), "malformed"),
                (lambda m: m["streams"].append(dict(m["streams"][0], stream="sys_audit_log/9y", files=[], first=10, left=nodes(self.world.hashes[A], 0, 10))), "altered"),
                (lambda m: m["streams"][0]["files"][0].update(sha256="11" * 32), "altered"), (lambda m: m["streams"][0]["files"][0].update(bytes=1), "altered"),
                (lambda m: m.update(origin="x"), "malformed"), (lambda m: m.update(format="x"), "malformed"), (lambda m: m.pop("columns"), "malformed"),
                (columns(kind="float"), "altered"), (columns(kind="int"), "altered"), (columns(name="id"), "altered"), (columns(name="ok"), "altered"),
                (columns(name=5), "altered"), (lambda m: m["columns"]["sys_audit_log"].pop(), "altered"), (lambda m: m.update(streams=[None]), "malformed"),
                (lambda m: m["columns"]["sys_audit_log"][7].update(scale=3), "altered"), (columns(kind="json"), "altered"),
                (lambda m: m["columns"].update(x_log=[]), "altered"), (lambda m: m["columns"].pop("sys_audit_log"), "altered"),
                (lambda m: m["columns"]["sys_audit_log"].reverse(), "altered")):
            self.world = World()
            shutil.rmtree(self.bundle, ignore_errors=True)
            self.check(verdict, edit=edit)

    def test_cut_tail_in_the_manifest(self):
        """The last records left out, with a right part that makes the root come out: only `all` tells."""
        self.world.ranges[A] = [(0, 4), (4, 8)]
        self.check("missing", stream=A, first=8, last=9)

    def test_head_left_out(self):
        self.world.ranges[A] = [(4, 10)]
        self.check("missing", stream=A, first=0, last=3)
        self.world = World()
        self.world.ranges[B] = [(3, 5)]
        self.check("missing", stream=B)

    def test_file_is_missing_or_extra(self):
        self.world.write(self.bundle)
        file = os.path.join(self.bundle, "streams", A, "000000000004-000000000009.parquet")
        shutil.copy(file, file.replace("4-", "5-"))
        self.check("altered", write=False)
        os.rename(file, file.replace("4-", "5-"))
        self.check("altered", write=False)
        os.remove(file.replace("4-", "5-"))
        self.check("missing", write=False, stream=A, first=4, last=9)
        os.mkdir(file)
        self.check("malformed", write=False, stream=A)

    def test_extra_or_retyped_column(self):
        self.world.write(self.bundle)
        file = os.path.join(self.bundle, "streams", A, "000000000004-000000000009.parquet")
        table = pq.read_table(file)
        pq.write_table(table.append_column("verified_by", pa.array(["nobody"] * 6)), file)
        self.check("malformed", write=False)
        at = table.schema.get_field_index("happened_at")
        pq.write_table(table.set_column(at, "happened_at", table["happened_at"].cast(pa.int64())), file)
        self.check("malformed", write=False)
        pq.write_table(table.drop_columns("happened_at"), file)
        self.check("altered", write=False, index=5)
        pq.write_table(table, file, use_dictionary=False, compression="none")
        self.check("altered", write=False, stream=A, index=None, file="streams/" + A + "/000000000004-000000000009.parquet")     # step 7

    def test_ndjson_of_two_meanings(self):
        self.world.format = "ndjson"
        self.world.write(self.bundle)
        file = os.path.join(self.bundle, "streams", A, "000000000004-000000000009.ndjson")
        with open(file, encoding="utf-8") as f:
            text = f.read()
        for damaged in (text.replace('{"id": 11', '{"id": 12, "id": 11'), text.replace('"rows": 24', '"rows": 24.0'), text.replace('"rows": 24', '"rows": true'),
                        text.replace('"id": 11', '"note": 1, "id": 11'), text.replace("\n", "\n\n", 1), text[:-30], text.replace('"id": 11', '"id": ' + "1" * 5000),
                        text.replace('"id": 11', '"table_name": "\\ud800", "id": 11').replace('"table_name": "tabé 5", ', ""), "[" * 100000):
            self.assertNotEqual(damaged, text)
            with open(file, "w", encoding="utf-8") as f:
                f.write(damaged)
            self.check("malformed", write=False, stream=A)


class MetaDamaged(Case):
    def test_older_bundle(self):
        world = self.world
        newer = world.leaves + [encode({"type": "heartbeat", "time": 9})]
        self.check("cut", "--checkpoint", self.put("published", note(newer, K1)))
        self.check("forged", "--checkpoint", self.put("published", note(newer, EVIL)))

    def test_published_other_history(self):
        other = self.world.leaves[:7] + [encode({"type": "heartbeat", "time": 9})]
        self.check("altered", "--checkpoint", self.put("published", note(other, K1)))

    def test_forged_checkpoint(self):
        world, good = self.world, self.world.notes["checkpoint"]
        for text in (note(world.leaves, EVIL), note(world.leaves, K0), good.replace("\n10\n", "\n9\n"), good.split("\n\n")[0] + "\n\n" + EVIL.line("x"),
                     note(world.leaves, K1, root=sha(b"x")).split("\n\n")[0] + "\n\n" + good.split("\n\n")[1]):
            world.notes["checkpoint"] = text
            self.check("forged")
        world.notes["checkpoint"] = good + EVIL.line("x") + "\u2014 witness.example/x " + b64(b"abcdefgh") + "\n"
        self.check("valid")

    def test_malformed_checkpoint(self):
        good = self.world.notes["checkpoint"]
        for text in ("", "\n", "x", good[:-1], good.replace("\n10\n", "\n010\n"), good.replace("\n10\n", "\n" + "9" * 5000 + "\n"), good.replace("\n10\n", "\n-10\n"),
                     good.replace("\n10\n", "\n0\n"), good.replace("\n\n", "\nextension\n\n"), good.replace("\u2014", "-"), "\0" * 100, good.replace("\n\n", "\n")):
            self.world.notes["checkpoint"] = text
            self.check("malformed")

    def test_meta_altered(self):
        world = self.world
        for number, leaf in ((7, encode({"type": "erasure", "time": 6, "stream": A, "indexes": [4, 5], "authority": "order 12"})),
                             (4, encode({"type": "heartbeat", "time": 4})), (9, world.commit(8, {A: 9, B: 5})),
                             (5, encode({"type": "key", "time": 4, "vkey": EVIL.vkey, "previous": K0.vkey}))):
            self.world = World()
            self.world.leaves[number] = leaf
            self.check("altered")

    def test_meta_cut_or_longer(self):
        last = self.world.leaves.pop()
        self.check("cut")
        self.world.leaves += [last, encode({"type": "heartbeat", "time": 9})]
        self.check("altered")

    def test_meta_malformed(self):
        for leaf in (b"\xa2", b"\xff", b"\xbf\xff", b"\x9b" + b"\xff" * 8, b"\x5b" + b"\x7f" + b"\xff" * 7, b"\x81" * 100000, encode([1]), encode({"type": "x", "time": 3}),
                     encode({"type": "heartbeat"}), encode({"type": "heartbeat", "time": 3, "x": 1}), encode({"type": "heartbeat", "time": 1}), encode({"type": "heartbeat", "time": 3.0}),
                     cbor2.dumps({"type": "heartbeat", "time": 3}), b"\xa2\x64time\x18\x03\x64type\x69heartbeat", b"\xa3\x64time\x03\x64time\x03\x64type\x69heartbeat",
                     encode({"type": "key", "time": 3, "vkey": K1.vkey}), encode({"type": "commit", "time": 3, "streams": [{"stream": A, "size": 3, "root": b"x"}]}),
                     encode({"type": "erasure", "time": 3, "stream": A, "indexes": [2, 1], "authority": ""}), b"\xa2\x64time\x03\x64type\x61\xff"):
            self.world = World()
            self.world.leaves[4] = leaf
            self.check("malformed")
        self.world = World()
        self.world.leaves[9] = self.world.leaves[9][:-1]
        self.check("malformed")

    def test_wrong_rotation(self):
        good = World().leaves

        def world(leaf5, rotation_signers, last=K1, drop=False):
            self.world = World()
            self.world.leaves[5] = leaf5
            self.world.notes = {"checkpoint": note(self.world.leaves, last), "checkpoints/6": note(self.world.leaves[:6], *rotation_signers)}
            if drop:
                del self.world.notes["checkpoints/6"]
            shutil.rmtree(self.bundle, ignore_errors=True)
        evil = encode({"type": "key", "time": 4, "vkey": EVIL.vkey, "previous": K0.vkey})
        world(evil, [EVIL], EVIL)                   # the thief rotates to his own key, alone
        self.check("forged")
        world(good[5], [K1])                        # the new key alone
        self.check("forged")
        world(good[5], [K0])                        # the old key alone
        self.check("forged")
        world(encode({"type": "key", "time": 4, "vkey": K1.vkey, "previous": EVIL.vkey}), [K0, K1])       # does not follow
        self.check("malformed")
        world(good[5], [K0, K1], drop=True)         # no rotation checkpoint
        self.check("forged")
        self.check("valid", key=K1)                 # ... which the new key does not need
        world(good[5], [K0, K1], last=K0)           # the old key goes on signing
        self.check("forged")
        world(good[5], [K0, K1])
        self.check("valid")

    def test_rotation_file_of_other_size(self):
        self.world.notes["checkpoints/7"] = self.world.notes.pop("checkpoints/6")
        self.check("malformed")
        self.world = World()
        self.world.notes["checkpoints/11"] = note(self.world.leaves + [b"\xa0"], K1)
        shutil.rmtree(self.bundle)
        self.check("cut")
        self.world.notes["checkpoints/11"] = note(self.world.leaves + [b"\xa0"], EVIL)
        self.check("forged")


    def test_appended_column(self):
        """A schema leaf may append a column; files of before don't have it. It may not change or remove one."""
        world, more = self.world, listed(COLUMNS + [("note", "text")])
        world.leaves.append(schema("sys_audit_log", more, 9))
        world.notes["checkpoint"] = note(world.leaves, K1)
        self.check("valid", edit=lambda m: m["columns"].update(sys_audit_log=more))
        self.check("altered")
        for columns in (more[:-2], more[1:], [dict(more[0], kind="json")] + more[1:], more[1::-1] + more[2:], more + more[:1]):
            world.leaves[10] = schema("sys_audit_log", columns, 9)
            world.notes["checkpoint"] = note(world.leaves, K1)
            self.check("malformed", edit=lambda m: m["columns"].update(sys_audit_log=columns))

    def test_bad_schema_leaf(self):
        good = listed(COLUMNS)
        for columns in ([dict(good[0], name="id")], [dict(good[0], kind="float")], [dict(good[0], scale=1)], [dict(good[7], precision=19)], [dict(good[7], scale=-1)],
                        [{"name": "x", "kind": "decimal"}], good[:1] * 2):
            self.world.leaves[1] = schema("sys_audit_log", columns)
            self.world.sign()
            self.check("malformed")
        self.world.leaves[1] = encode({"type": "heartbeat", "time": 1})     # a commit of a log without a schema
        self.world.sign()
        self.check("malformed")

    def test_bad_commit_leaf(self):
        for sizes in ({}, {A: 7}, {A: 6}, {A: 0}):
            self.world = World()
            self.world.leaves[9] = self.world.commit(8, {**sizes, **({B: 5} if sizes else {})})
            self.world.sign()
            self.check("malformed")
        for name in ("Sys/7y", "sys_audit_log/7", "sys_audit_log", "7sys/7y", "sys_audit_log/7y/x"):
            self.world = World()
            self.world.leaves[8] = encode({"type": "disposal", "time": 7, "stream": name, "end": 2, "policy": "5y"})
            self.world.sign()
            self.check("malformed")

    def test_retired_key(self):
        """After the rotation the old key can't sign: neither the bundle's checkpoint, nor another one, nor a published one."""
        world = self.world
        world.notes["checkpoint"] = note(world.leaves, K0)
        for key in (K0, K1):
            self.check("forged", key=key)
        world.sign()
        for size in (7, 9):
            world.notes[f"checkpoints/{size}"] = note(world.leaves[:size], K0)
            self.check("forged")
            world.notes[f"checkpoints/{size}"] = note(world.leaves[:size], K0, K1)
            self.check("valid")
            self.check("forged", "--checkpoint", self.put("published", note(world.leaves[:size], K0)))
        self.check("valid", "--checkpoint", self.put("published", note(world.leaves[:5], K0)), key=K1)
        self.check("forged", "--checkpoint", self.put("published", note(world.leaves[:5], K1)), key=K1)

    def test_old_key_alone_leads_nowhere(self):
        """Signed by the key in force, which only a checkpoint that the old key has signed out of turn leads to."""
        self.world.notes = {"checkpoint": note(self.world.leaves, K0, K1)}
        self.check("forged", key=K0)
        shutil.rmtree(self.bundle)
        self.check("valid", key=K1)

    def test_unsigned_comes_first(self):
        """Whatever state the leaves are in, a checkpoint that no key signed is forged."""
        for damage in (lambda leaves: leaves.pop(), lambda leaves: leaves.append(b"\xff"), lambda leaves: leaves.insert(8, leaves[4])):
            for signer, verdict in ((EVIL, "forged"), (K1, None)):
                self.world = World()
                self.world.notes["checkpoint"] = note(self.world.leaves, signer)
                damage(self.world.leaves)
                self.world.write(self.bundle)
                self.assertIn(self.run_tool(self.bundle)[1]["verdict"], [verdict] if verdict else ["cut", "malformed"])


class Inputs(Case):
    def test_cannot_work(self):
        for args, key in ((["/does/not/exist"], K0), ([self.folder], K0), (["--proof", "/does/not/exist"], K0), (["--note", "/does/not/exist"], K0),
                          ([self.folder], "not a key"), ([self.folder], ORIGIN + "+00000000+" + K0.vkey.split("+", 2)[2])):
            self.assertEqual(self.run_tool(*args, key=key)[0], 2)
        self.world.write(self.bundle)
        self.assertEqual(self.run_tool(self.bundle, "--checkpoint", "/does/not/exist")[0], 2)

    def test_note(self):
        file = self.put("note", self.world.notes["checkpoint"])
        self.assertEqual(self.run_tool("--note", file, key=K1)[1]["size"], 10)
        self.assertEqual(self.run_tool("--note", file, key=K0)[1]["verdict"], "forged")
        self.assertEqual(self.run_tool("--note", self.put("note", b"\xff"), key=K0)[1]["verdict"], "malformed")

    def test_missing_parts(self):
        for file in ("checkpoint", "meta.cborseq"):
            self.world.write(self.bundle)
            os.remove(os.path.join(self.bundle, file))
            self.check("missing", write=False)

    def test_noise(self):
        """Every file cut short at many places, and with bytes changed at random: never valid unless nothing it says changed, never a traceback."""
        rng = random.Random(7)
        for form in ("parquet", "ndjson"):
            self.world.format = form
            shutil.rmtree(self.bundle, ignore_errors=True)
            self.world.write(self.bundle)
            files = [os.path.join(place, name) for place, _, names in os.walk(self.bundle) for name in names]
            for file in sorted(files):
                with open(file, "rb") as f:
                    good = f.read()
                for trial in range(25):
                    data = bytearray(good)
                    if trial < 8:
                        data = data[:rng.randrange(len(data))]
                    else:
                        for _ in range(rng.choice([1, 1, 20])):
                            data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
                    with open(file, "wb") as f:
                        f.write(data)
                    code, result = self.run_tool(self.bundle)
                    self.assertTrue(code == 1 or file.endswith("manifest.json") or "checkpoint" in file and code == 0, (file, trial, result))
                with open(file, "wb") as f:
                    f.write(good)
            self.check("valid", write=False)


class Proofs(Case):
    def prove(self, proof, key=K0):
        code, result = self.run_tool("--proof", self.put("proof.json", proof if isinstance(proof, (str, bytes)) else json.dumps(proof)), key=key)
        return result["verdict"]

    def test_good(self):
        for stream, records in self.world.streams.items():
            for i, record in enumerate(records):
                if record["salt"]:
                    self.assertEqual(self.prove(self.world.proof(stream, i)), "valid")
        self.assertIn(f'"stream_index": {i}', "".join(self.lines))
        self.assertEqual(self.prove(self.world.proof(A, 9), K1), "valid")
        self.assertEqual(self.prove(self.world.proof(A, 9, rotated=False), K1), "valid")

    def test_bad(self):
        good, other = self.world.proof(A, 5), "11" * 32

        def inner(name, **fields):
            return {name: {**good[name], **fields}}
        rotation = good["rotations"][0]
        for fields, verdict in (
                ({"payload": b64(encode(dict(self.world.streams[A][5]["data"], rows=1)))}, "altered"), ({"id": 1}, "altered"), ({"recorded_at": 1}, "altered"),
                ({"salt": "11" * 16}, "altered"), ({"previous_hash": other}, "altered"), ({"blockchain_hash": other}, "altered"), ({"stream_index": 4}, "altered"),
                ({"stream_path": [other] * len(good["stream_path"])}, "altered"), ({"stream_path": []}, "malformed"), ({"stream_path": good["stream_path"] + [other]}, "malformed"),
                (inner("commit", number=7), "altered"), (inner("commit", number=10), "malformed"), (inner("commit", leaf=b64(self.world.leaves[9])), "altered"),
                (inner("commit", path=[]), "malformed"), ({"checkpoint": note(self.world.leaves, K0)}, "forged"), ({"checkpoint": note(self.world.leaves, EVIL)}, "forged"),
                ({"rotations": []}, "forged"), ({"rotations": [dict(rotation, checkpoint=note(self.world.leaves[:6], EVIL, K1))]}, "forged"),
                ({"rotations": [dict(rotation, leaf=b64(encode({"type": "key", "time": 4, "vkey": EVIL.vkey, "previous": K0.vkey})))]}, "forged"),
                ({"rotations": [dict(rotation, number=4)]}, "malformed"), ({"stream": B, "log": "auth_audit_log"}, "altered"), ({"log": "x"}, "malformed"),
                ({"origin": "x"}, "malformed"), ({"stream_index": 2**64}, "malformed"), ({"payload": "!"}, "malformed"), ({"commit": []}, "malformed"), ({"format": "x"}, "malformed")):
            self.assertEqual(self.prove({**good, **fields}), verdict, fields)
        for name in good:
            self.assertEqual(self.prove({k: v for k, v in good.items() if k != name}), "malformed", name)
        self.assertEqual(self.prove(good, EVIL), "forged")
        for text in ("", "[]", "{", "[" * 100000, b"\xff", "null", json.dumps(good).replace("{", '{"format": "x", ', 1)):
            self.assertEqual(self.prove(text), "malformed")

    def test_schema(self):
        world, good = self.world, self.world.proof(A, 5)
        metas = [sha(bytes(1) + leaf) for leaf in world.leaves]

        def other(number, leaf=None):
            return dict(good, schema={"number": number, "leaf": b64(leaf or world.leaves[number]), "path": [h.hex() for h in path(number, metas)]})
        self.assertEqual(self.prove(other(2)), "altered")           # of the other log
        self.assertEqual(self.prove(other(1, schema("sys_audit_log", [*listed(COLUMNS)[:7], dict(listed(COLUMNS)[7], scale=0), listed(COLUMNS)[8]]))), "altered")
        self.assertEqual(self.prove(other(4)), "malformed")         # a heartbeat
        world.leaves.insert(1, schema("sys_audit_log", COLUMNS[:2]))
        world.leaves[2] = schema("sys_audit_log", COLUMNS)
        world.notes = {"checkpoint": note(world.leaves, K1), "checkpoints/7": note(world.leaves[:7], K0, K1)}
        metas = [sha(bytes(1) + leaf) for leaf in world.leaves]
        commit = {"number": 7, "leaf": b64(world.leaves[7]), "path": [h.hex() for h in path(7, metas)]}
        good = dict(good, commit=commit, checkpoint=world.notes["checkpoint"], rotations=[])
        self.assertEqual(self.prove(other(2), K1), "valid")
        self.assertEqual(self.prove(other(1), K1), "malformed")     # an older schema, which doesn't have the columns

    def test_chain_of_rotations(self):
        """K0, then K1, then a third key: any of them may be the trusted one."""
        world, third = self.world, Signer(4)
        world.leaves.append(encode({"type": "key", "time": 9, "vkey": third.vkey, "previous": K1.vkey}))
        world.notes["checkpoint"] = note(world.leaves, K1, third)
        proof, metas = world.proof(A, 5), [sha(bytes(1) + leaf) for leaf in world.leaves]
        proof["rotations"].append({"checkpoint": world.notes["checkpoint"], "number": 10, "leaf": b64(world.leaves[10]), "path": [h.hex() for h in path(10, metas)]})
        for key in (K0, K1, third):
            self.assertEqual(self.prove(proof, key), "valid")
        self.assertEqual(self.prove(proof, EVIL), "forged")
        self.assertEqual(self.prove(dict(proof, rotations=proof["rotations"][::-1])), "malformed")
        self.assertEqual(self.prove(dict(proof, rotations=proof["rotations"][:1])), "valid")       # K1 has signed it, too
        self.assertEqual(self.prove(dict(proof, rotations=proof["rotations"][1:])), "forged")
        self.assertEqual(self.prove(dict(proof, rotations=proof["rotations"][1:]), K1), "valid")
        older = note(world.leaves[:10], third)
        self.assertEqual(self.prove(dict(proof, checkpoint=older)), "forged")

    def test_commit_leaf_of_another_kind(self):
        good = self.world.proof(A, 5)
        metas = [sha(bytes(1) + leaf) for leaf in self.world.leaves]
        good["commit"] = {"number": 4, "leaf": b64(self.world.leaves[4]), "path": [h.hex() for h in path(4, metas)]}
        self.assertEqual(self.prove(good), "malformed")


class Pieces(unittest.TestCase):
    def test_cbor_against_cbor2(self):
        for n in (0, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1, -1, -24, -25, -2**64, "", "\u00e9" * 300, b"x" * 70000, [], [1, [2]],
                  {"a": True, "bb": False, "c": {"d": []}}):
            data = encode(n)
            self.assertEqual(muniment_verify.cbor_item(data, 0), (n, len(data)))
            for cut in range(min(len(data), 20)):
                with self.assertRaises(muniment_verify.Fail):
                    muniment_verify.cbor_item(data[:cut], 0)
        for n in (2**64, -2**64 - 1, None, 1.5, {1: 2}, cbor2.CBORTag(0, "2026-01-01T00:00:00Z")):
            with self.assertRaises(muniment_verify.Fail):
                muniment_verify.cbor_item(encode([n]), 0)

    def test_known_tree(self):
        """The well-known vectors of certificate-transparency implementations."""
        inputs = [bytes.fromhex(h) for h in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")]
        tree = muniment_verify.Tree()
        for i, data in enumerate(inputs):
            tree.append(0, i, sha(b"\0" + data))
        self.assertEqual(tree.root().hex(), "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328")


if __name__ == "__main__":
    unittest.main()
