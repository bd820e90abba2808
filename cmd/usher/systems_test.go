package main

import (
	"cmp"
	"strings"
	"testing"

	"github.com/usher-agent/usher/plugin/catalog"
)

// The privacy page has a row for the upstream of each system, which names what of the host its requests carry, and
// nothing of that which they do not.
func TestPrivacyNamesWhatLeaves(t *testing.T) {
	_, leaves, _ := strings.Cut(read(t, "../../docs/privacy.md"), "\n## What leaves the host\n")
	for _, s := range catalog.Systems() {
		if s.Settings == nil {
			continue
		}
		section, row := "`upstream."+cmp.Or(s.Section, s.Name)+"` is set |", ""
		for line := range strings.Lines(leaves) {
			if strings.HasPrefix(line, "| ") && strings.Contains(line, section) {
				row = line
			}
		}
		if row == "" {
			t.Errorf("docs/privacy.md does not say what leaves the host where upstream.%s is set",
				cmp.Or(s.Section, s.Name))
		}
		for word, carried := range map[string]bool{"`host.fingerprint`": s.Carries.Fingerprint,
			"hostname": s.Carries.Hostname, "memory": s.Carries.Memory, "disk": s.Carries.Disk} {
			if strings.Contains(row, word) != carried {
				t.Errorf("docs/privacy.md, %s: a request carries the %s: %t", s.Name, word, carried)
			}
		}
	}
}
