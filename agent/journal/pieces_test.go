package journal

import (
	"bytes"
	"path/filepath"
	"testing"
)

// An opening sums the journal beyond what was sealed of it, up to its end: the seal of the start reads nothing again.
func TestSumsForTheNextSeal(t *testing.T) {
	t.Parallel()
	c := Config{Dir: t.TempDir(), Name: "j"}
	j, _, err := Open(c, func([]byte) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	var sealed Extent
	for i := range 100 {
		if _, err := j.Append(bytes.Repeat([]byte{byte(i)}, 1+100*i)); err != nil {
			t.Fatal(err)
		}
		if i == 50 {
			if sealed, err = j.Extent(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	want, err := ExtentOf(filepath.Join(c.Dir, c.Name))
	if err != nil {
		t.Fatal(err)
	}
	c.Sealed = []Extent{sealed}
	j, r, err := Open(c, func([]byte) error { return nil })
	if err != nil || r.Fault != "" || r.Records != 100 {
		t.Fatalf("%+v, %v", r, err)
	}
	defer j.Close()
	if j.sums.size != want.Size {
		t.Errorf("summed up to %d of %d bytes", j.sums.size, want.Size)
	}
	if x, err := j.Extent(); err != nil || x.Size != want.Size || !bytes.Equal(x.Digest, want.Digest) {
		t.Errorf("the extent is %+v, %v; want %+v", x, err, want)
	}
}
