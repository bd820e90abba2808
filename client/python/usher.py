"""A client of the Usher agent in the Python standard library: slots that live by this process.

    import usher
    with usher.open() as session, session.acquire("streams") as lease:
        ...

The protocol is in docs/wire.md. One thread at a time may use a session; a forked child opens one of its own.
"""

import array
import json
import os
import random
import socket
import time

DEFAULT_SOCKET = "/run/usher/usher.sock"


def _bare(value):
    """Takes off a variable's value what shells and files of variables leave around it."""
    value = (value or "").strip()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1].strip()
    return value


def _shown(text):
    """Writes what would command a terminal, forge a line or turn the direction as an escape: a traceback prints it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(text))


class Refused(Exception):
    """The agent said no. code is stable: no_slots, license_expired, …; hint says what helps, where anything does; problem is all that it said."""

    def __init__(self, problem):
        super().__init__(_shown(problem.get("detail", "")))
        self.code, self.hint, self.problem = problem.get("code", "internal"), problem.get("hint", ""), problem


class AgentAway(Exception):
    """No agent answers. Leases stand meanwhile."""


def _object(value, what):
    """Returns what the agent wrote, if that is a JSON object."""
    if not isinstance(value, dict):
        raise ValueError(f"{what} is no JSON object")
    return value


class Lease:
    """Slots that are held until close(), until the process ends, or until they are lost: lost says why."""

    def __init__(self, session, info):
        self.session, self.info, self.id, self.lost = session, info, info.get("id"), None
        if not (isinstance(self.id, str) and self.id):
            raise AgentAway("the agent's answer is not a lease")

    def close(self):
        if os.getpid() != self.session.pid or self.session.leases.pop(self.id, None) is None:
            return  # the parent's, given back before, or lost
        try:
            self.session.call("lease.release", id=self.id)
        except Refused as e:
            if e.code != "lease_unknown":
                raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Session:
    """A kept-open connection. It connects again by itself, and shows its leases to an agent that was restarted."""

    def __init__(self, path=None, labels=None, patience=10.0):
        self.path = path or _bare(os.environ.get("USHER_SOCKET")) or DEFAULT_SOCKET
        self.labels, self.patience, self.pid = labels or {}, patience, os.getpid()
        self.leases, self.next, self.sock = {}, 0, None
        self._connect()

    def _connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self.path)
        self.lines = self.sock.makefile("rb")
        self.first = True
        self.agent = self._ask("session.hello", {"versions": [1], "client": "python", "labels": self.labels})

    def _send(self, data):
        if self.first:  # a pidfd of this process goes with the first bytes, for agents whose kernel does not say who connected
            self.first = False
            try:
                fd = os.pidfd_open(os.getpid())
            except (AttributeError, OSError):
                fd = -1
            if fd >= 0:
                try:
                    data = data[self.sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]):]
                finally:
                    os.close(fd)
        self.sock.sendall(data)

    def _ask(self, method, params):
        self.next += 1
        request = {"jsonrpc": "2.0", "id": self.next, "method": method, "params": params}
        self._send(json.dumps(request, separators=(",", ":")).encode() + b"\n")
        while True:
            line = self.lines.readline()
            if not line.endswith(b"\n"):
                raise ConnectionError("the agent closed the session")
            try:
                answer = _object(json.loads(line), "a message")
                if answer.get("id") not in (None, self.next) or "method" in answer:
                    continue  # a notification
                if "error" not in answer:
                    return _object(answer.get("result"), "its answer to " + method)
                error = _object(answer["error"], "an error")
            except (ValueError, RecursionError) as e:
                self.close()
                raise AgentAway(f"no agent answers on {self.path}: {e}") from e
            problem = error.get("data")
            if not (isinstance(problem, dict) and problem.get("code")):
                problem = {"detail": error.get("message")}
            raise Refused({**problem, "detail": problem.get("detail") or "the agent gives no reason"})

    def _again(self):
        """Connects again, with back-off and jitter, and shows the leases."""
        wait, until = 0.01, time.monotonic() + self.patience
        while True:
            try:
                self._connect()
                for lease in list(self.leases.values()):
                    if lease.info.get("lifetime") not in ("process", "connection"):
                        continue
                    try:
                        lease.info = self._ask("lease.attach", {"id": lease.id})
                    except Refused as e:
                        if e.code not in ("lease_unknown", "not_holder"):
                            raise
                        lease.lost = e
                        del self.leases[lease.id]
                return
            except OSError as e:  # a full backlog (EAGAIN) too
                if time.monotonic() > until:
                    self.sock.close()
                    raise AgentAway(f"no agent answers on {self.path}: {e}") from e
            time.sleep(random.uniform(0, wait))
            wait = min(2 * wait, 2)

    def call(self, method, **params):
        """Makes one call. It is made again when the connection breaks: give a client_token where that matters."""
        if os.getpid() != self.pid:
            raise RuntimeError("the session is the parent's; open one after forking")
        while True:
            try:
                return self._ask(method, params)
            except (OSError, ValueError):  # a closed file is a ValueError
                self.close()
                self._again()

    def acquire(self, pool, n=1, **more):
        """Takes n slots of a pool, or raises Refused; wait_seconds and the like as in docs/api.md."""
        lease = Lease(self, self.call("lease.acquire", pool=pool, n=n, **more))
        self.leases[lease.id] = lease
        return lease

    def release(self, lease_id, force=False, hold_off_seconds=None):
        """Ends a lease by its id. An admin ends anybody's with force; with hold_off_seconds its holder gets no slots of the lease's pools for so long. Of a lease that was ended so, that sets how much longer it lasts, and 0 lifts it."""
        more = {} if hold_off_seconds is None else {"hold_off_seconds": hold_off_seconds}
        self.call("lease.release", id=lease_id, force=force, **more)

    def pools(self):
        pools = self.call("pools.list").get("pools")
        if not isinstance(pools, list) or not all(isinstance(p, dict) and p.get("name") for p in pools):
            raise AgentAway(f"no agent answers on {self.path}: its answer to pools.list has no list of pools")
        return {p["name"]: p for p in pools}

    def license(self):
        return self.call("license.get")

    def close(self):
        """Ends the connection. Leases that live by this process go on until it ends."""
        self.lines.close()
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def socket_of(name, instance=""):
    """Returns the socket of the agent that a vendor ships under a name of its own, for open: the one in USHER_SOCKET, so
    that an operator can move it, else /run/NAME/INSTANCE/NAME.sock, as the packages' units have it."""
    return _bare(os.environ.get("USHER_SOCKET")) or "/".join(filter(None, ["/run", name, instance, name + ".sock"]))


def open(path=None, **more):
    """Opens a session with the agent on a socket: USHER_SOCKET's, or the usual one."""
    try:
        return Session(path, **more)
    except OSError as e:
        raise AgentAway(f"no agent answers on {path or _bare(os.environ.get('USHER_SOCKET')) or DEFAULT_SOCKET}: {e}") from e
