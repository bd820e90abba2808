package files

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

const manifestName = "state.seal"

func testKey(t *testing.T, id string) Key {
	t.Helper()
	k, err := NewKey(bytes.Repeat([]byte(id), 32)[:32], id)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// vaultIn opens the vault of a folder that its key has sealed, if sealed says so.
func vaultIn(t *testing.T, dir string, sealed bool, change func(*VaultConfig)) *Vault {
	t.Helper()
	c := VaultConfig{Dir: dir, Manifest: manifestName, Key: testKey(t, "a"), Sealed: sealed, Now: time.Now}
	if change != nil {
		change(&c)
	}
	v, err := OpenVault(c, Earlier{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func save(t *testing.T, v *Vault, name, body string) {
	t.Helper()
	if err := v.Save(name, []byte(body)); err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, v *Vault, name string) Content {
	t.Helper()
	c, err := v.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func read(t *testing.T, dir, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func put(t *testing.T, dir, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A folder of two files, each of two generations. old has the files after the first generation of b.
func sealedFolder(t *testing.T) (dir string, old map[string][]byte) {
	t.Helper()
	dir, old = t.TempDir(), map[string][]byte{}
	v := vaultIn(t, dir, false, nil)
	save(t, v, "a.json", `{"a":1}`)
	save(t, v, "b.json", `{}`)
	for _, name := range []string{"a.json", "b.json", manifestName} {
		old[name] = read(t, dir, name)
	}
	save(t, v, "a.json", `{"a":2}`)
	save(t, v, "b.json", `{"b":2}`)
	return dir, old
}

func TestVaultKeepsWhatItSealed(t *testing.T) {
	dir, _ := sealedFolder(t)
	v := vaultIn(t, dir, true, nil)
	if c := load(t, v, "a.json"); string(c.Body) != `{"a":2}` || c.Fault != "" {
		t.Errorf("a.json is %q, %q", c.Body, c.Fault)
	}
	var plain struct{ B int }
	if err := json.Unmarshal(read(t, dir, "b.json"), &plain); err != nil || plain.B != 2 {
		t.Errorf("a sealed file is not the JSON that it was: %+v, %v", plain, err)
	}
	if c := load(t, v, "none.json"); c.Body != nil || c.Fault != "" {
		t.Errorf("a file that never was: %+v", c)
	}
	if f := v.Findings(); len(f) != 0 {
		t.Errorf("findings: %v", f)
	}
}

// foreign returns a folder that another agent has sealed.
func foreign(t *testing.T) string {
	dir := t.TempDir()
	v := vaultIn(t, dir, false, func(c *VaultConfig) { c.Key = testKey(t, "b") })
	save(t, v, "a.json", `{"a":9}`)
	return dir
}

// damages are damages to a sealed folder.
var damages = []struct {
	name  string
	do    func(t *testing.T, dir string, old map[string][]byte)
	file  string
	fault Fault
	known string // of a.json; empty: nothing may be
}{
	{"missing", func(t *testing.T, dir string, _ map[string][]byte) {
		os.Remove(filepath.Join(dir, "a.json"))
	}, "a.json", FaultMissing, `{"a":2}`},
	{"empty", func(t *testing.T, dir string, _ map[string][]byte) {
		put(t, dir, "a.json", nil)
	}, "a.json", FaultEmpty, `{"a":2}`},
	{"seal cut off", func(t *testing.T, dir string, _ map[string][]byte) {
		put(t, dir, "a.json", []byte(`{"a":3}`))
	}, "a.json", FaultEdited, `{"a":2}`},
	{"edited", func(t *testing.T, dir string, _ map[string][]byte) {
		put(t, dir, "a.json", bytes.Replace(read(t, dir, "a.json"), []byte(`"a":2`), []byte(`"a":3`), 1))
	}, "a.json", FaultEdited, `{"a":2}`},
	{"older", func(t *testing.T, dir string, old map[string][]byte) {
		put(t, dir, "a.json", old["a.json"])
	}, "a.json", FaultOlder, `{"a":2}`},
	{"swapped", func(t *testing.T, dir string, _ map[string][]byte) {
		put(t, dir, "a.json", read(t, dir, "b.json"))
	}, "a.json", FaultSwapped, `{"a":2}`},
	{"another agent's", func(t *testing.T, dir string, _ map[string][]byte) {
		put(t, dir, "a.json", read(t, foreign(t), "a.json"))
	}, "a.json", FaultForeign, `{"a":2}`},
	{"manifest removed", func(t *testing.T, dir string, _ map[string][]byte) {
		os.Remove(filepath.Join(dir, manifestName))
	}, manifestName, FaultMissing, `{"a":2}`},
	{"manifest emptied", func(t *testing.T, dir string, _ map[string][]byte) {
		put(t, dir, manifestName, nil)
	}, manifestName, FaultEmpty, `{"a":2}`},
	{"manifest edited", func(t *testing.T, dir string, _ map[string][]byte) {
		put(t, dir, manifestName,
			bytes.Replace(read(t, dir, manifestName), []byte("generation"), []byte("Generation"), 1))
	}, manifestName, FaultEdited, `{"a":2}`},
	{"another agent's manifest", func(t *testing.T, dir string, _ map[string][]byte) {
		put(t, dir, manifestName, read(t, foreign(t), manifestName))
	}, manifestName, FaultForeign, `{"a":2}`},
	{"a file for the manifest", func(t *testing.T, dir string, _ map[string][]byte) {
		put(t, dir, manifestName, read(t, dir, "a.json"))
	}, manifestName, FaultSwapped, `{"a":2}`},
	{"older manifest and file: a mix", func(t *testing.T, dir string, old map[string][]byte) {
		put(t, dir, manifestName, old[manifestName])
		put(t, dir, "a.json", old["a.json"])
		v := vaultIn(t, dir, true, nil)
		save(t, v, "a.json", `{"a":2}`) // b.json is one ahead and chains; another step does not
		save(t, v, "b.json", `{"b":1}`)
		put(t, dir, "b.json",
			bytes.Replace(read(t, dir, "b.json"), []byte(`"generation":2`), []byte(`"generation":3`), 1))
	}, "b.json", FaultEdited, ``},
	{"both removed", func(t *testing.T, dir string, _ map[string][]byte) {
		os.Remove(filepath.Join(dir, manifestName))
		os.Remove(filepath.Join(dir, "a.json"))
	}, manifestName, FaultMissing, ``},
}

// The vault notices every damage to its folder. The finding stands over restarts until it is accepted, and the last
// known content stays known.
func TestVaultNotices(t *testing.T) {
	for _, test := range damages {
		t.Run(test.name, func(t *testing.T) {
			dir, old := sealedFolder(t)
			test.do(t, dir, old)
			v := vaultIn(t, dir, true, nil)
			a := load(t, v, "a.json")
			load(t, v, "b.json")
			f, ok := v.Found(test.file)
			if !ok || f.Fault != test.fault {
				t.Fatalf("found %+v, want %s of %s", v.Findings(), test.fault, test.file)
			}
			if test.file != "b.json" && a.Body != nil {
				t.Errorf("it is believed: %s", a.Body)
			}
			if test.file != "b.json" && string(a.Known) != test.known {
				t.Errorf("known is %q, want %q", a.Known, test.known)
			}
			if v.Lost().IsZero() == (test.file == manifestName) {
				t.Errorf("the manifest was lost at %v", v.Lost())
			}
			v = vaultIn(t, dir, true, nil)
			if _, ok := v.Found(test.file); !ok {
				t.Error("a restart forgets it")
			}
			if found, err := v.Accept(); err != nil || len(found) == 0 {
				t.Errorf("accepted %v, %v", found, err)
			}
			if v = vaultIn(t, dir, true, nil); len(v.Findings()) != 0 || !v.Lost().IsZero() {
				t.Errorf("it stands though it was accepted: %v", v.Findings())
			}
		})
	}
}

// No byte of a sealed file can be another one.
func TestVaultEveryFlippedBit(t *testing.T) {
	dir, _ := sealedFolder(t)
	whole := read(t, dir, "a.json")
	for i := range whole {
		b := bytes.Clone(whole)
		b[i] ^= 1 << (i % 8)
		put(t, dir, "a.json", b)
		v := vaultIn(t, dir, true, nil)
		if c := load(t, v, "a.json"); c.Body != nil {
			t.Errorf("byte %d of %s is another, and it is believed: %s", i, b, c.Body)
		}
		if _, err := v.Accept(); err != nil {
			t.Fatal(err)
		}
	}
}

// stop ends a process between two writes.
var errStop = errors.New("the process ends here")

// A process that ends before or after any of its writes leaves nothing that looks like tampering, and of each file the
// content before or after its last save.
func TestVaultStopsAtEveryWrite(t *testing.T) {
	for _, lost := range []bool{false, true} {
		for stop := 0; ; stop++ {
			dir := t.TempDir()
			if lost { // the first start finds no manifest where there was one
				put(t, dir, "old.json", []byte(`{}`))
			}
			writes := 0
			write := func(after bool) func(string, []byte, fs.FileMode) error {
				return func(path string, b []byte, mode fs.FileMode) error {
					if writes++; writes > stop {
						return errStop
					}
					return Replace(path, b, mode)
				}
			}
			is := map[string]string{}
			was := map[string]string{}
			process := func() (done bool) {
				c := VaultConfig{Dir: dir, Manifest: manifestName, Key: testKey(t, "a"), Sealed: lost, Now: time.Now,
					Write: write(false)}
				v, err := OpenVault(c, Earlier{})
				if err != nil {
					t.Fatal(err)
				}
				for i, step := range []func() error{
					func() error { return v.SetFact("x", 1) },
					func() error { return v.SealJournal("j", Extent{1, []byte("1")}, []byte(`{}`)) },
				} {
					if step() != nil {
						return false
					}
					for _, name := range []string{"a.json", "b.json"} {
						body := fmt.Sprintf(`{"n":%d}`, i)
						was[name] = is[name]
						is[name] = body
						if v.Save(name, []byte(body)) != nil {
							return false
						}
						if writes > stop { // the manifest was not written, and the process is gone
							return false
						}
					}
				}
				return true
			}
			done := process()
			v := vaultIn(t, dir, false, nil)
			for _, name := range []string{"a.json", "b.json"} {
				c := load(t, v, name)
				if got := string(c.Body); c.Fault != "" || got != is[name] && got != was[name] {
					t.Errorf("stopped at write %d: %s is %q (%s), want %q or %q", stop, name, got, c.Fault, is[name],
						was[name])
				}
			}
			for _, f := range v.Findings() {
				if f.File != manifestName || !lost {
					t.Errorf("stopped at write %d: %+v", stop, f)
				}
			}
			if done {
				if stop < 8 {
					t.Errorf("only %d writes were stopped at", stop)
				}
				break
			}
		}
	}
}

// A disk that is full for a while loses no generation: the next save writes the manifest first.
func TestVaultOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	full := false
	v := vaultIn(t, dir, false, func(c *VaultConfig) {
		c.Write = func(path string, b []byte, mode fs.FileMode) error {
			if full && filepath.Base(path) == manifestName {
				return errStop
			}
			return Replace(path, b, mode)
		}
	})
	save(t, v, "a.json", `{"a":1}`)
	full = true
	save(t, v, "a.json", `{"a":2}`)
	if err := v.Save("a.json", []byte(`{"a":3}`)); err == nil {
		t.Error("the file is two generations ahead of the manifest")
	}
	if c := load(t, vaultIn(t, dir, true, nil), "a.json"); string(c.Body) != `{"a":2}` || c.Fault != "" {
		t.Errorf("after the stop: %s, %s", c.Body, c.Fault)
	}
}

// The vault takes an earlier version's files over once, as they are.
func TestVaultTakesOverOnce(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a.json", []byte(`{"a":1}`))
	put(t, dir, "c.json", []byte(`{"c":1}`))
	c := VaultConfig{Dir: dir, Manifest: manifestName, Key: testKey(t, "a"), Now: time.Now}
	earlier := Earlier{Files: []string{"a.json", "b.json", "c.json"}, Journals: []string{"j"}}
	v, err := OpenVault(c, earlier)
	if err != nil {
		t.Fatal(err)
	}
	if c := load(t, v, "a.json"); string(c.Body) != `{"a":1}` {
		t.Errorf("a.json is %+v", c)
	}
	if want, listed := v.Extents("j"); len(want) != 0 || !listed {
		t.Errorf("the journal: %v, %v", want, listed)
	}
	save(t, v, "a.json", `{"a":2}`)
	put(t, dir, "c.json", []byte(`{"c":2}`)) // not the one that was taken over
	put(t, dir, "b.json", []byte(`{"b":1}`)) // it was not there
	v = vaultIn(t, dir, true, nil)
	if c := load(t, v, "a.json"); string(c.Body) != `{"a":2}` {
		t.Errorf("a.json is %+v", c)
	}
	for name, want := range map[string]Fault{"c.json": FaultEdited, "b.json": FaultUnlisted} {
		if c := load(t, v, name); c.Fault != want || c.Body != nil {
			t.Errorf("%s is %+v, want %s", name, c, want)
		}
	}
	// A second time by removing the seals: the key knows better.
	os.Remove(filepath.Join(dir, manifestName))
	put(t, dir, "a.json", []byte(`{"a":1}`))
	c.Sealed = true
	if v, err = OpenVault(c, earlier); err != nil {
		t.Fatal(err)
	}
	if c := load(t, v, "a.json"); c.Body != nil || c.Fault != FaultUnlisted {
		t.Errorf("taken over twice: %+v", c)
	}
}

// A file of another start of the host counts for nothing, and is no finding. A file that is put back from one is a
// finding.
func TestVaultOfAnotherBoot(t *testing.T) {
	dir := t.TempDir()
	boot := func(id string) func(*VaultConfig) {
		return func(c *VaultConfig) { c.Boot, c.Volatile = id, true }
	}
	v := vaultIn(t, dir, false, boot("one"))
	save(t, v, "a.json", `{"a":1}`)
	old := read(t, dir, "a.json")
	v = vaultIn(t, dir, false, boot("two"))
	if c := load(t, v, "a.json"); c.Body != nil || c.Fault != "" || len(v.Findings()) != 0 || !v.Fresh() {
		t.Errorf("of another start: %+v, %v", c, v.Findings())
	}
	save(t, v, "a.json", `{"a":2}`)
	put(t, dir, "a.json", old)
	if c := load(t, vaultIn(t, dir, false, boot("two")), "a.json"); c.Body != nil || c.Fault != FaultOlder {
		t.Errorf("put back from another start: %+v", c)
	}
}

// A power cut leaves anything of a folder that nothing was synced in. Where the folder is known to be of another start
// of the host, that is no finding, and the next start of the agent in this one knows so too.
func TestVaultAfterAPowerCut(t *testing.T) {
	for what, left := range map[string][]byte{"nothing": {}, "zeros": make([]byte, 100), "half": []byte(`{"files":{`)} {
		dir := t.TempDir()
		of := func(id string, past Earlier) func(*VaultConfig) {
			return func(c *VaultConfig) { c.Boot, c.Volatile, c.Past = id, true, past }
		}
		v := vaultIn(t, dir, false, of("one", Earlier{}))
		save(t, v, "a.json", `{"a":1}`)
		put(t, dir, manifestName, left)
		put(t, dir, "a.json", left)
		past := Earlier{Files: []string{"a.json"}, Journals: []string{"j"}}
		for range 2 { // the second is not told, for the caller has noted the start of the host by then
			v = vaultIn(t, dir, false, of("two", past))
			past = Earlier{}
			c := load(t, v, "a.json")
			if _, listed := v.Extents("j"); c.Body != nil || c.Fault != "" || !listed || !v.Past("j") ||
				len(v.Findings()) != 0 || !v.Lost().IsZero() {
				t.Errorf("%s is left: %+v, journal listed %v, past %v, %v", what, c, listed, v.Past("j"), v.Findings())
			}
		}
		save(t, v, "a.json", `{"a":2}`)
		if err := v.SealJournal("j", Extent{}, nil); err != nil {
			t.Fatal(err)
		}
		put(t, dir, "a.json", left)
		v = vaultIn(t, dir, false, of("two", Earlier{}))
		if c := load(t, v, "a.json"); c.Fault == "" || v.Past("j") {
			t.Errorf("%s is left of what this start has sealed: %+v, past %v", what, c, v.Past("j"))
		}
	}
}

func TestVaultKnowsJournals(t *testing.T) {
	dir := t.TempDir()
	v := vaultIn(t, dir, false, nil)
	if _, listed := v.Extents("j"); listed {
		t.Error("a journal is listed that never was")
	}
	if err := v.SealJournal("j", Extent{10, []byte("x")}, []byte(`{"drawn":7}`)); err != nil {
		t.Fatal(err)
	}
	if err := v.Announce("j", Extent{3, []byte("y")}); err != nil {
		t.Fatal(err)
	}
	v = vaultIn(t, dir, true, nil)
	if want, listed := v.Extents("j"); len(want) != 2 || !listed || want[0].Size != 10 || want[1].Size != 3 {
		t.Errorf("the journal begins with %v, %v", want, listed)
	}
	if err := v.SealJournal("j", Extent{4, []byte("z")}, nil); err != nil {
		t.Fatal(err)
	}
	if want, _ := v.Extents("j"); len(want) != 1 || string(v.Known("j")) != `{"drawn":7}` {
		t.Errorf("sealed again: %v, %s", want, v.Known("j"))
	}
}

// While the disk hangs under a seal, what is known of the folder is read as ever: who judges, or asks how the state is,
// waits for no disk.
func TestHungDiskHoldsNoReaderUp(t *testing.T) {
	hangs, goesOn := make(chan struct{}), make(chan struct{})
	slow := false
	v := vaultIn(t, t.TempDir(), false, func(c *VaultConfig) {
		c.Write = func(path string, data []byte, mode fs.FileMode) error {
			if slow {
				close(hangs)
				<-goesOn
			}
			return Replace(path, data, mode)
		}
	})
	if err := v.SetFact("last", 1); err != nil {
		t.Fatal(err)
	}
	slow = true
	done := make(chan error)
	go func() { done <- v.SetFact("last", 2) }()
	<-hangs
	var last int
	if known := v.Fact("last", &last); !known || last == 0 || len(v.Findings()) != 0 || !v.Lost().IsZero() {
		t.Errorf("the fact is %d (%v), and the findings are %v", last, known, v.Findings())
	}
	if f, ok := v.Found("x"); ok {
		t.Errorf("%+v is found", f)
	}
	slow = false
	close(goesOn)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
