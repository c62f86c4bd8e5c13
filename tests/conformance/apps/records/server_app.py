"""Everything that a RecordDict may hold, there and back."""

import json
import math

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()


def everything():
    """Return the arrays and a RecordDict with all kinds of values."""
    arrays = {
        "f2": np.array([1.5, -0.0, np.inf], dtype=np.float16),
        "f4": np.linspace(0, 1, 7, dtype=np.float32).reshape(7, 1),
        "f8": np.array([[np.nan, 1e-308], [np.pi, -np.inf]]),
        "i1": np.array([-128, 127], dtype=np.int8),
        "i8": np.array([-(2**63), 2**63 - 1]),
        "u1": np.arange(256, dtype=np.uint8),
        "bool": np.array([True, False, True]),
        "scalar": np.array(3.25),
        "empty": np.zeros((0, 4), dtype=np.float32),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "strided": np.arange(20, dtype=np.int32)[::3],
    }
    content = RecordDict(
        {
            "z": ArrayRecord({name: Array(value) for name, value in arrays.items()}),
            "a": MetricRecord(
                {"int": -1, "max": 2**64 - 1, "float": 0.1, "nan": math.nan, "inf": math.inf, "list": [1, 2]}
            ),
            "config": ConfigRecord(
                {
                    "bytes": bytes(range(256)),
                    "text": "zürich \u2013 \U0001f9e0",
                    "flags": [True, False],
                    "blobs": [b"", b"\x00"],
                    "floats": [0.1, 1e300],
                    "texts": ["", "x"],
                    "no": False,
                    "zero": 0,
                }
            ),
            "second": ArrayRecord([np.ones(2)]),
            "nothing": ConfigRecord(),
            "none": ArrayRecord(),
            "metrics": MetricRecord({"floats": [0.5, -0.0]}),
        }
    )
    return arrays, content


@app.main()
def main(grid, context):
    arrays, content = everything()
    replies = list(grid.send_and_receive([Message(content, node, "query") for node in grid.get_node_ids()]))
    replies += list(
        grid.send_and_receive([Message(RecordDict(), node, "query") for node in grid.get_node_ids()])
    )
    seen, back = [], {}
    for place, reply in enumerate(replies):
        names = list(reply.content)
        records = {}
        for name, record in reply.content.items():
            if isinstance(record, ArrayRecord):
                back.update({f"{place}-{name}-{key}": array.numpy() for key, array in record.items()})
                records[name] = [
                    [key, array.dtype, list(array.shape), array.stype] for key, array in record.items()
                ]
            else:
                records[name] = [[key, type(value).__name__, repr(value)] for key, value in record.items()]
        seen.append([names, records])
    np.savez("result.npz", **{f"sent-{name}": value for name, value in arrays.items()}, **back)
    with open("result.json", "w") as file:
        json.dump(seen, file)
