"""What to begin with: for each target the committed corpus, and the words that its inputs are made of."""

import hashlib
from pathlib import Path

import hypothesis.strategies as st
from mutate import NEXT, mutated

CORPUS = Path(__file__).parent / "corpus"

#: Of `hello`, and of the file that the person at the client sends.
_HELLO, _SENT = hashlib.sha256(b"hello").hexdigest().encode(), hashlib.sha256(b"untouched").hexdigest().encode()

#: A file from one stranger to another, until both are content.
_TRANSFER = [
    b'{"type":"hello","nick":"ana"}\n',
    b'{"type":"hello","nick":"ben"}\n',
    *(b"", b""),
    b'{"type":"file_offer","to":"ben","name":"a","size":5,"sha256":"%s","id":1}\n' % _HELLO,
    b'{"type":"file_accept","file":1,"id":1}\n{"type":"file_credit","file":1,"offset":0,"again":true}\n',
    *(b"", b""),
    b'{"type":"file_chunk","file":1,"offset":0,"data":"aGVs"}\n{"type":"file_chunk","file":1,"offset":3,"data":"bG8="}\n',
    b'{"type":"file_credit","file":1,"offset":5}\n{"type":"file_end","file":1,"outcome":"done","id":2}\n',
]
_UP = [
    b'{"type":"hello","nick":"ana"}\n',
    b'{"type":"hello","nick":"ben","key":"a secret of my own"}\n',
    b'{"type":"attach","token":"t","cursors":{"lobby":1}}\n',
    b'\x00{"type":"attach","token":"$TOKEN","cursors":{"inbox":0,"lobby":1}}\n',
    b'\x00{"type":"hello","nick":"ben","key":"a secret of my own"}\n{"type":"file_accept","file":1}\n',
    b'{"type":"say","text":"x","id":1}\n',
    b'{"type":"say","text":"x","id":1,"room":"tea"}\n',
    b'{"type":"tell","to":"witness","text":"x","id":2}\n',
    b'{"type":"nick","nick":"cleo","id":3}\n',
    b'{"type":"join","room":"tea","id":4}\n{"type":"leave","room":"tea"}\n',
    b'{"type":"join","room":"tea","cursor":0}\n',
    b'{"type":"file_offer","to":"witness","name":"a","size":1,"sha256":"' + b"0" * 64 + b'","id":5}\n',
    b'{"type":"file_offer","to":"ana","name":"a","size":0,"sha256":"' + b"0" * 64 + b'"}\n',
    b'{"type":"file_accept","file":1}\n',
    b'{"type":"file_credit","file":1,"offset":0,"again":true}\n',
    b'{"type":"file_chunk","file":1,"offset":0,"data":"aGVs"}\n',
    b'{"type":"file_end","file":1,"outcome":"done"}\n',
    b'{"type":"who"}\n{"type":"rooms"}\n{"type":"settle"}\n{"type":"ping","n":7}\n',
    b'{"type":"last","lines":3}\n{"type":"topic","room":"lobby","text":"x","id":6}\n',
    b'{"type":"bye"}\n',
    b"\x00\x00",
    NEXT.join(_TRANSFER),
]
_RECEIVED = [
    b'{"type":"welcome","nick":"ana","token":"t","cursors":{"inbox":0,"lobby":1},"limits":{},"history":"h"}\n',
    b'{"type":"file_offered","log":"inbox","seq":1,"from":"ben","to":"ana","file":1,"name":"a","size":5,"sha256":"%s"}\n'
    % _HELLO,
    *[b'{"type":"pong"}\n'] * 8,
    b'{"type":"file_accepted","log":"inbox","seq":2,"from":"ana","file":1}\n',
    b'{"type":"file_chunk","file":1,"offset":0,"data":"aGVs"}\n{"type":"file_chunk","file":1,"offset":3,"data":"bG8="}\n',
    b'{"type":"file_ended","log":"inbox","seq":3,"from":"ana","file":1,"outcome":"done","id":9}\n',
]
_DELIVERED = [
    b'{"type":"welcome","nick":"ana","token":"t","cursors":{"inbox":0,"lobby":1},"limits":{},"history":"h"}\n',
    *[b'{"type":"pong"}\n'] * 6,
    *[
        b'{"type":"file_offered","log":"inbox","seq":%d,"from":"ana","to":"ben","file":2,"name":"victim","size":9,'
        b'"sha256":"%s","id":%d}\n' % (number, _SENT, number + 3)
        for number in (1, 2, 3)
    ],
    b'{"type":"file_accepted","log":"inbox","seq":4,"from":"ben","file":2}\n',
    b'{"type":"file_credit","file":2,"offset":0}\n{"type":"file_credit","file":2,"offset":9}\n',
    b'{"type":"file_ended","log":"inbox","seq":5,"from":"ben","file":2,"outcome":"done"}\n',
]
_DOWN = [
    b'{"type":"welcome","nick":"ana","token":"t","cursors":{"inbox":0,"lobby":1},"limits":{},"history":"h"}\n',
    b'{"type":"welcome","nick":"ana","token":"t","cursors":{},"limits":{"line_bytes":1},"history":"h"}\n',
    b'{"type":"attached","nick":"ana","cursors":{"inbox":0,"lobby":1}}\n',
    b'{"type":"said","log":"lobby","seq":2,"from":"ana","text":"hello","id":1}\n',
    b'{"type":"said","log":"lobby","seq":9,"from":"ben","text":"x"}\n{"type":"gap","log":"lobby","missed":6}\n',
    b'{"type":"told","log":"inbox","seq":1,"from":"ben","to":"ana","text":"x"}\n',
    b'{"type":"joined","log":"lobby","seq":3,"nick":"ben"}\n',
    b'{"type":"renamed","log":"lobby","seq":3,"nick":"ana","to":"zoe","id":2}\n',
    b'{"type":"left","log":"lobby","seq":4,"nick":"ana","reason":"x"}\n',
    b'{"type":"refused","code":"bad_token","reason":"x"}\n',
    b'{"type":"refused","code":"stale_id","reason":"x","id":1,"log":"inbox","seq":1}\n',
    b'{"type":"member","cursors":{"tea":1},"id":1}\n',
    b'{"type":"settled","id":1,"nick":"ana","cursors":{"inbox":0,"lobby":2}}\n',
    b'{"type":"file_offered","log":"inbox","seq":1,"from":"ben","to":"ana","file":1,"name":"../victim","size":3,"sha256":"'
    + b"0" * 64
    + b'"}\n',
    b'{"type":"file_accepted","log":"inbox","seq":2,"from":"ben","file":1}\n',
    b'{"type":"file_chunk","file":1,"offset":0,"data":"aGVs"}\n',
    b'{"type":"file_credit","file":1,"offset":3}\n',
    b'{"type":"file_ended","log":"inbox","seq":3,"from":"ben","file":1,"outcome":"done"}\n',
    b'{"type":"present","nicks":["ana"],"room":"tea"}\n{"type":"rooms","rooms":{"lobby":2}}\n{"type":"pong","n":7}\n',
    b'{"type":"last","room":"lobby","lines":[{"type":"said","log":"lobby","seq":1,"from":"ben","text":"x"}]}\n',
    b'{"type":"topic","log":"lobby","seq":3,"from":"ben","text":"x"}\n',
    b'{"type":"error","code":"malformed","reason":"x"}\n',
    b'{"type":"bye","reason":"x"}\n',
    b'{"type":"bye","reason":"x","back_in_s":1,"id":3}\n',
    b'\x00{"type":"attached","nick":"ana","cursors":{"inbox":0,"lobby":1}}\n',
    b"standby\x00",
    b"\x00",
    b"".join(_RECEIVED),
    b"".join(_DELIVERED),
]
_JSON = [
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b'"',
    b"\n",
    b"\r\n",
    b"null",
    b"true",
    b"-1",
    b"0",
    b"1e999",
    b"\\u0000",
    b"\x00",
]
_JSON += [
    b"18446744073709551616",
    b"-9223372036854775809",
    b'"id":',
    b'"type":',
    b'"seq":',
    b"\xff",
    "é→".encode(),
    b"GET / HTTP/1.1\r\n",
]
_YAML = [
    *(b"link: lossy-wifi\n", b"link:\n  delay: 50ms\n", b"  loss: 2%\n", b"users: 5\n", b"users: {BroadcastUser: 3}\n"),
    *(
        b"connections: redundant\n",
        b"vary:\n  connections: [single, redundant]\n",
        b"stages:\n  - {users: 5, duration: 5s}\n",
    ),
    *(
        b"messages: {rate: 1/s}\n",
        b"thresholds:\n",
        b"  - p99 < 5 s\n",
        b"server: 127.0.0.1:5000\n",
        b"&a ",
        b"*a",
        b"[",
        b"]",
    ),
    *(
        b"{",
        b"}",
        b": ",
        b", ",
        b"- ",
        b"\n",
        b"\t",
        b"!!python/object:os.system ",
        b"---\n",
        b"? ",
        b"| \n",
        b"~",
        b"-1",
        b"\x00",
    ),
    *(
        b"nan",
        b"inf",
        b"1e999s",
        b"extends: x\n",
        b"  trace: input.yaml\n",
        b"  distribution: pareto\n",
        b"<<: *a\n",
        b"9" * 400,
    ),
]
_TRACE = [
    b"1\n",
    b"0\n",
    b"-1\n",
    b"9" * 30 + b"\n",
    b" ",
    b"\n",
    b"a",
    b"\xff",
    b"1_0\n",
    b"9" * 5000 + b"\n",
    b"1.5\n",
]
_CSV = [
    *(b"messages.csv\x00", b"deliveries.csv\x00", b"tcp.csv\x00", b"link.csv\x00", b"files.csv\x00", b"run.json\x00"),
    *(b"clients.csv\x00", b"stalls.csv\x00", b"machine.csv\x00", b"pauses.csv\x00", b"summary.csv\x00"),
    *(b"trial,user,id,kind,response_time_ms,outcome,warmup,disturbed\n", b"1,0,1,say,1.5,echoed,0,0\n"),
    *(b"trial,receiver,sender,id,one_way_delay_ms,received_s,disturbed\n", b"1,0,1,1,0.5,0.1,0\n"),
    *(b"trial,", b",", b"\n", b"\r", b'"', b"nan", b"inf", b"-1", b"1e309", b"9" * 30, b"say", b"\xff", b"True", b";"),
    *(b'{"schema_version":5,"trials":[{"number":1,"name":"a"}]}', b'"trials":[]', b'"vary":{"link":["lan"]}', b"null"),
]
_LINE = b'{"type":"said","log":"lobby","seq":%d,"from":"ana","text":"x"}'
_SQL = [
    b"INSERT INTO line VALUES ('lobby', 1, CAST('" + _LINE % 1 + b"\n' AS BLOB));\n",
    b"INSERT INTO line VALUES ('lobby', 2, CAST('" + _LINE % 2 + b"\n' AS BLOB));\n",
    b"INSERT INTO line VALUES ('tea', 7, CAST('" + _LINE.replace(b"lobby", b"tea") % 7 + b"\n' AS BLOB));\n",
    b"INSERT INTO line VALUES (NULL, NULL, NULL);\n",
    b"INSERT INTO line VALUES (x'ff', 1.5, zeroblob(70000));\n",
    b"INSERT OR REPLACE INTO fact VALUES ('topic lobby', 'x');\n",
    b"INSERT INTO owner VALUES ('ana', '" + b"0" * 64 + b"', 'Ana zoe');\n",
    b"INSERT INTO owner VALUES ('zoe', '" + b"1" * 64 + b"', 'zoe');\n",
    b"UPDATE owner SET nicks = 'ben';\n",
    b"DROP TABLE owner;\nCREATE TABLE owner (name, key, nicks);\n",
    b"DROP TABLE owner;\nCREATE VIEW owner AS SELECT seq AS name, room AS key, data AS nicks FROM line;\n",
    b"INSERT OR REPLACE INTO fact VALUES ('open', 1);\n",
    b"UPDATE fact SET value = 9223372036854775807 WHERE name = 'last_seq';\n",
    b"UPDATE fact SET value = NULL WHERE name = 'history';\n",
    b"UPDATE line SET seq = seq + 1;\n",
    b"UPDATE line SET room = 'a room';\n",
    b"DELETE FROM fact;\n",
    b"DROP TABLE line;\nCREATE TABLE line (room, seq, data);\n",
    b"ALTER TABLE line RENAME COLUMN data TO more;\n",
    b"CREATE VIEW fact AS SELECT 'last_seq' AS name, 1 AS value;\n",
    b"PRAGMA user_version = 2;\n",
    b"PRAGMA writable_schema = 1;\nUPDATE sqlite_master SET sql = 'x';\n",
    b"CREATE TRIGGER t BEFORE INSERT ON fact BEGIN SELECT RAISE(FAIL, 'x'); END;\n",
    b"SQLite format 3\x00",
]
_NAMES = [
    "a",
    "ana",
    "you",
    "inbox",
    "é",
    "е",
    "ß",
    "\u0301",
    "\u034f",
    "ｗ",
    "→",
    ":",
    "*",
    " ",
    "\u200d",
    "ا",
    "א",
    "क्",
    "ﬁ",
    "\ud800",
    "·",
]

WORDS: dict[str, list[bytes]] = {
    "wire": _UP + _DOWN + _JSON,
    "names": [name.encode("utf-8", "surrogatepass") for name in _NAMES],
    "server": _UP + _JSON,
    "client": _DOWN + _JSON,
    "scenario": _YAML,
    "trace": _TRACE,
    "run_directory": _CSV,
    "journal": _SQL,
}


def corpus(target: str) -> list[bytes]:
    """The committed inputs of a target."""
    return [file.read_bytes() for file in sorted((CORPUS / target).glob("*"))]


def seeds(target: str) -> list[bytes]:
    """What to begin with: the committed inputs, each word, alone and after the first one, and all of them."""
    words = WORDS[target]
    return [*corpus(target), *words, *(words[0] + word for word in words), b"".join(words)]


def inputs(target: str) -> st.SearchStrategy[bytes]:
    """Words of the target with noise among them; or a seed with some changes."""
    word = st.sampled_from(WORDS[target]) | st.binary(max_size=8)
    made = st.lists(word, max_size=24).map(b"".join)
    return made | st.builds(mutated, st.sampled_from(seeds(target)), st.just(WORDS[target]), st.randoms())
