#!/usr/bin/env python3
"""Runs the two Python libraries this project grows out of on W1, W2, W3 and W6, and prints what the peers print.

    pip install py-event-sourcing "eventsource-py[sqlite]" greenlet
    python3 benches/seeds.py --available
    python3 benches/seeds.py py-event-sourcing W3-one --dir /tmp/x --events 1000 --payload 100 --per-append 1 --callers 1 --mode normal

The last line of the output is one JSON object. Exit code 3: the library does not do this workload, or not in this mode.
Their durability is theirs: py-event-sourcing sets synchronous=NORMAL, eventsource-py leaves FULL; the other mode is
unsupported rather than patched in.
"""

import argparse
import asyncio
import importlib.util
import json
import os
import resource
import sys
import time
import uuid

MODULES = {"py-event-sourcing": "py_event_sourcing", "eventsource-py": "eventsource"}
MODES = {"py-event-sourcing": "normal", "eventsource-py": "full"}
UNSUPPORTED = 3


class PyEventSourcing:
    """One handle a stream, kept open, as its documentation does."""

    def __init__(self, path):
        from py_event_sourcing import CandidateEvent, sqlite_stream_factory

        self.event = CandidateEvent
        self.factory = sqlite_stream_factory(path)

    async def __aenter__(self):
        self.open_stream = await self.factory.__aenter__()
        return self

    async def __aexit__(self, *problem):
        await self.factory.__aexit__(*problem)

    async def appender(self, name, new):
        del new
        stream = await self.open_stream(name).__aenter__()

        async def append(payloads):
            await stream.write([self.event(type="deposited", data=payload) for payload in payloads])

        return append

    async def read(self, name):
        count = 0
        async with self.open_stream(name) as stream:
            async for _ in stream.read():
                count += 1
        return count


class EventsourcePy:
    """Typed events, since it has no others; one pydantic model with the payload as a text."""

    def __init__(self, path):
        import eventsource

        self.library = eventsource

        class Deposited(eventsource.DomainEvent):
            event_type: str = "Deposited"
            aggregate_type: str = "Account"
            data: str

        registry = eventsource.EventRegistry()
        registry.register(Deposited)
        self.event = Deposited
        self.store = eventsource.SQLiteEventStore(path, registry)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *problem):
        await self.store.close()

    def stream(self, name):
        return self.library.StreamId(uuid.uuid5(uuid.NAMESPACE_OID, name), "Account")

    async def appender(self, name, new):
        del new
        stream, version = self.stream(name), 0

        async def append(payloads):
            nonlocal version
            events = [
                self.event(aggregate_id=stream.aggregate_id, aggregate_version=version + n, data=payload.decode())
                for n, payload in enumerate(payloads, 1)
            ]
            await self.store.append(stream, events, self.library.ExpectedVersion.exact(version))
            version += len(events)

        return append

    async def read(self, name):
        count = 0
        async for _ in self.store.read_stream(self.stream(name)):
            count += 1
        return count


LIBRARIES = {"py-event-sourcing": PyEventSourcing, "eventsource-py": EventsourcePy}


async def run(options, path):
    payload = b"x" * (0 if options.workload == "W1" else options.payload)
    taken = []
    async with LIBRARIES[options.library](path) as library:
        if options.workload == "W3-new":
            begun = time.perf_counter()
            for n in range(options.events):
                asked = time.perf_counter()
                append = await library.appender(f"account-{n}", True)
                await append([payload])
                taken.append(time.perf_counter() - asked)
            return options.events, time.perf_counter() - begun, taken
        append = await library.appender("account-one", False)
        per_append = 1 if options.workload == "W3-one" else max(1, options.per_append)
        begun = time.perf_counter()
        for first in range(0, options.events, per_append):
            asked = time.perf_counter()
            await append([payload] * min(per_append, options.events - first))
            taken.append(time.perf_counter() - asked)
        seconds = time.perf_counter() - begun
        if options.workload == "W6":
            taken, begun = [], time.perf_counter()
            if await library.read("account-one") != options.events:
                sys.exit("not what was written")
            seconds = time.perf_counter() - begun
        return options.events, seconds, taken


def main():
    if sys.argv[1:] == ["--available"]:
        print("\n".join(name for name, module in MODULES.items() if importlib.util.find_spec(module)))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("library", choices=list(LIBRARIES))
    parser.add_argument("workload")
    parser.add_argument("--dir", required=True)
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--payload", type=int, default=100)
    parser.add_argument("--per-append", type=int, default=1)
    parser.add_argument("--callers", type=int, default=1)
    parser.add_argument("--mode", choices=["full", "normal"], required=True)
    options = parser.parse_args()
    writes = options.workload != "W6"
    if options.workload not in ("W1", "W2", "W3-one", "W3-new", "W6") or (
        writes and options.mode != MODES[options.library]
    ):
        sys.exit(UNSUPPORTED)
    os.makedirs(options.dir, exist_ok=True)
    path = os.path.join(options.dir, "store.db")
    events, seconds, taken = asyncio.run(run(options, path))
    taken.sort()
    at = lambda part: taken[int((len(taken) - 1) * part)] * 1e6 if taken else None
    print(
        json.dumps(
            {
                "workload": options.workload,
                "events": events,
                "seconds": seconds,
                "events_per_second": events / seconds,
                "file_bytes": sum(os.path.getsize(f) for f in (path, path + "-wal") if os.path.exists(f)),
                "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "p50_us": at(0.5),
                "p99_us": at(0.99),
                "note": f"Python; synchronous={MODES[options.library].upper()}",
            }
        )
    )


if __name__ == "__main__":
    main()
