package client_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"testing"
)

// readsGarbled makes the calls of the Python client that get the answers of its standard input, one after another.
const readsGarbled = `import json, sys, tempfile, socket, threading, os
sys.path.insert(0, "python")
import usher

def serve(listener, answer):
    conn, _ = listener.accept()
    lines = conn.makefile("rwb")
    for line in lines:
        request = json.loads(line)
        text = '{"jsonrpc":"2.0","id":%d,"result":{"agent":{}}}' if request["method"] == "session.hello" else answer
        lines.write(text.replace("%d", str(request["id"])).encode() + b"\n")
        lines.flush()

folder = tempfile.mkdtemp()
for i, answer in enumerate(json.load(sys.stdin)):
    for call in (lambda s: s.acquire("streams"), lambda s: s.pools()):
        path = os.path.join(folder, f"{i}.{call.__code__.co_firstlineno}.{len(os.listdir(folder))}")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        threading.Thread(target=serve, args=(listener, answer), daemon=True).start()
        session = usher.open(path, patience=0)
        listener.close()
        try:
            print(f"{answer}: returned {call(session)!r}")
        except (usher.AgentAway, usher.Refused) as e:
            if not str(e):
                print(f"{answer}: no reason")
        if session.leases:
            print(f"{answer}: {session.leases}")
`

// The Python client raises AgentAway or Refused, with a reason, for each answer that it cannot read.
func TestGarbledAnswersInPython(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("there is no python3")
	}
	cmd := exec.Command("python3", "-c", readsGarbled)
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1", "TMPDIR="+t.TempDir())
	answers, err := json.Marshal(append(garbled[:len(garbled):len(garbled)], "[[[[[[[[[[", `{"id":%d,"error":null}`))
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	go func() { in.Write(answers); in.Close() }()
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("%v\n%s", err, out)
	}
}
