package agent_test

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"testing"
)

const pythonProduct = `import os, sys
sys.path.insert(0, "../client/python")
import usher

with usher.open(sys.argv[1], labels={"job": "1"}) as s:
    assert s.agent["you"]["pid"] == os.getpid(), s.agent
    with s.acquire("streams") as a:
        assert s.pools()["streams"]["in_use"] == 1
        assert a.info["lifetime"] == "process" and a.info["holder"]["labels"] == {"job": "1"}, a.info
    assert s.pools()["streams"]["in_use"] == 0
    b = s.acquire("streams", 2)
    try:
        s.acquire("streams")
        raise SystemExit("one too many is granted")
    except usher.Refused as e:
        assert e.code == "no_slots" and "streams" in str(e) and "try again" in e.hint and e.hint == e.problem["hint"], e
    if os.fork() == 0:
        b.close()
        try:
            s.pools()
        except RuntimeError:
            os._exit(0)
        os._exit(1)
    assert os.wait()[1] == 0
    assert s.pools()["streams"]["in_use"] == 2
    print("restart", flush=True)
    sys.stdin.readline()
    assert s.pools()["streams"]["in_use"] == 2 and b.lost is None
    b.close()
    assert s.pools()["streams"]["in_use"] == 0
    s.acquire("streams", 2)
    print("held", flush=True)
    sys.stdin.readline()
`

// docs/wire.md is enough: the client in Python takes slots, gives them back, and finds the agent again after a crash.
func TestPythonClient(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("python3"); err != nil {
		lacks(t, "there is no python3")
	}
	c := openCrashing(t, 2, nil)
	cmd := exec.Command("python3", "-c", pythonProduct, c.Socket())
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	lines := bufio.NewScanner(out)
	hears := func(want string) {
		t.Helper()
		if !lines.Scan() || !strings.HasPrefix(lines.Text(), want) {
			t.Fatalf("got %q, want %s", lines.Text(), want)
		}
	}
	hears("restart")
	c.kill()
	c.run()
	if _, err := in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	hears("held")
	c.inUse(2)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.inUse(0)
}
