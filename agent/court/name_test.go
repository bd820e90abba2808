package court

import "testing"

// A licence that is installed without a name never takes the file of another one.
func TestNameOfAnotherLicence(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	b := h.sign("b", nil)
	if _, d := h.Install(t.Context(), b, "a.lic", false); d != nil {
		t.Fatal(d)
	}
	got, d := h.Install(t.Context(), h.sign("a", nil), "", false)
	if d != nil || got.Name == "a.lic" || string(h.folder.files["a.lic"]) != string(b) || len(h.folder.files) != 2 {
		t.Errorf("%q, %v: the folder has %d files", got.Name, d, len(h.folder.files))
	}
	if again, d := h.Install(t.Context(), b, "", false); d != nil || again.Name != "b.lic" {
		t.Errorf("%q, %v", again.Name, d)
	}
}
