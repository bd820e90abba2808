"""A client of BrainFrame's API for licences and stream analysis, for tests.

The vendor's own client cannot be had from a package registry. This one was written from a description of it: the same
calls and classes, a new connection for each call, HTTP Basic first and then the session's cookie, errors told apart by
their title alone, and no more tolerance than its codecs have. Where the original lets a type pass unchecked, this one
checks it.
"""

import base64
import datetime
import enum
import http.client
import json
import sys
import urllib.parse

DEFAULT_TIMEOUT = 30


class BrainFrameError(Exception):
    """An error of the server. Its kind is the title."""

    def __init__(self, kind, description, status):
        super().__init__(f"{kind}: {description}")
        self.kind, self.status_code = kind, status


class ServerNotReadyError(Exception):
    """The server cannot be reached, or something answers 502 in its place."""


class State(enum.Enum):
    VALID = "valid"
    INVALID = "invalid"
    EXPIRED = "expired"
    MISSING = "missing"


class Terms:
    def __init__(self, d):
        self.online_checkin = d["online_checkin"]
        self.max_streams = d["max_streams"]
        self.journal_max_allowed_age = d["journal_max_allowed_age"]
        day = d["expiration_date"]
        self.expiration_date = None if day is None else datetime.datetime.strptime(day, "%Y-%m-%d").date()
        assert type(self.online_checkin) is bool, d
        assert self.max_streams is None or type(self.max_streams) is int, d
        assert self.journal_max_allowed_age is None or type(self.journal_max_allowed_age) is float, d
        assert day is None or day == self.expiration_date.isoformat(), d


class LicenseInfo:
    State = State
    Terms = Terms

    def __init__(self, d):
        self.state = State(d["state"])
        self.terms = None if d["terms"] is None else Terms(d["terms"])

    def to_dict(self):
        terms = None
        if self.terms is not None:
            terms = dict(vars(self.terms))
            day = terms["expiration_date"]
            terms["expiration_date"] = None if day is None else day.isoformat()
        return {"state": self.state.value, "terms": terms}


class BrainFrameAPI:
    def __init__(self, server_url, credentials=None):
        self.credentials, self.session_id, self.sent_basic = credentials, None, 0
        self.set_url(server_url)

    def set_url(self, server_url):
        self.url = urllib.parse.urlsplit(server_url)

    def _once(self, method, path, body, content_type, timeout):
        headers = {"Accept-Encoding": "identity", "User-Agent": "python-urllib3/2.0.7"}
        if content_type:
            headers["content-type"] = content_type
        if self.session_id:
            headers["Cookie"] = "session_id=" + self.session_id
        elif self.credentials:
            secret = ":".join(self.credentials).encode("latin-1")
            headers["Authorization"] = "Basic " + base64.b64encode(secret).decode()
            self.sent_basic += 1
        connection = http.client.HTTPConnection(self.url.hostname, self.url.port, timeout=timeout)
        try:
            connection.request(method, self.url.path + path, body, headers)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as e:
            raise ServerNotReadyError(str(e)) from e
        finally:
            connection.close()
        for cookie in (answer.headers.get_all("Set-Cookie") or []):
            name, _, value = cookie.partition(";")[0].partition("=")
            if name == "session_id":
                self.session_id = value
        if answer.status < 400:
            assert answer.status < 300, "redirects repeat a PUT without its body"
            return json.loads(text)
        if not text:
            raise BrainFrameError("UnknownError", "", None)
        if answer.status == 502:
            raise ServerNotReadyError(text)
        fault = json.loads(text)
        raise BrainFrameError(fault["title"], fault["description"], answer.status)

    def _call(self, method, path, body=None, content_type=None, timeout=DEFAULT_TIMEOUT):
        try:
            return self._once(method, path, body, content_type, timeout)
        except BrainFrameError as e:
            if e.kind != "InvalidSessionError" or not self.session_id:
                raise
            self.session_id = None
            return self._once(method, path, body, content_type, timeout)

    def version(self, timeout=DEFAULT_TIMEOUT):
        version = self._call("GET", "/api/version", timeout=timeout)
        assert type(version) is str, version
        return version

    def get_license_info(self, timeout=DEFAULT_TIMEOUT):
        return LicenseInfo(self._call("GET", "/api/license", timeout=timeout))

    def set_license_key(self, license_key, timeout=DEFAULT_TIMEOUT):
        return LicenseInfo(self._call("PUT", "/api/license", license_key, "application/base64", timeout))

    def start_analyzing(self, stream_id, timeout=DEFAULT_TIMEOUT):
        self._call("PUT", f"/api/streams/{stream_id}/analyze", "true", "application/json", timeout)

    def stop_analyzing(self, stream_id, timeout=DEFAULT_TIMEOUT):
        return self._call("PUT", f"/api/streams/{stream_id}/analyze", "false", "application/json", timeout)

    def check_analyzing(self, stream_id, timeout=DEFAULT_TIMEOUT):
        is_analyzing = self._call("GET", f"/api/streams/{stream_id}/analyze", timeout=timeout)
        assert type(is_analyzing) is bool, is_analyzing
        return is_analyzing

    def get_current_cloud_user(self, timeout=DEFAULT_TIMEOUT):
        try:
            return self._call("GET", "/api/cloud_user", timeout=timeout)
        except BrainFrameError as e:
            if e.kind != "CloudUserNotFoundError":
                raise
            return None


def main():
    """Makes the calls that stand on standard input, one a line: [name, argument, ...]."""
    api = BrainFrameAPI(sys.argv[1], tuple(sys.argv[2:4]) or None)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            value = getattr(api, name)(*arguments)
            out = {"value": value.to_dict() if isinstance(value, LicenseInfo) else value}
        except BrainFrameError as e:
            out = {"kind": e.kind, "status": e.status_code, "text": str(e)}
        except ServerNotReadyError:
            out = {"kind": "ServerNotReadyError"}
        out["basic"] = api.sent_basic
        print(json.dumps(out), flush=True)


if __name__ == "__main__":
    main()
