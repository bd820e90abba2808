package config

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// notKeys are names that the pages write as they write keys: files, events, methods of a session, and names of others.
var notKeys = regexp.MustCompile(`\.(key|pub|lock|seal|json|journal)$|^agent\.\w+ed$|^log\.(gap|cut)$|` +
	`^upstream\.changed$|` +
	`^license\.(changed|returned|get|invalid_license|license_not_found)$|^limits\.(instances|resource_units|nodes)$|` +
	`^policies\.yaml$|^events\.(subscribe|ended)$|^fleet\.(drained|undrained|evicted|readmitted)$`)

// A key that a page names is one that the configuration has.
func TestPagesNameKeys(t *testing.T) {
	known := map[string]bool{}
	sections := map[string]bool{}
	for _, k := range Keys() {
		parts := strings.Split(strings.ReplaceAll(k, "[]", ""), ".")
		for i := range parts {
			known[strings.Join(parts[:i+1], ".")] = true
		}
		sections[parts[0]] = true
	}
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) < 25 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, dir := range []string{"how-to", "systems"} {
		more, _ := filepath.Glob("../../docs/" + dir + "/*.md")
		pages = append(pages, more...)
	}
	key := regexp.MustCompile("`([a-z_]+(?:\\[\\d*\\])?(?:\\.[a-z_]+(?:\\[\\d*\\])?)+)(?:: [^`]*)?`")
	index := regexp.MustCompile(`\[\d*\]`)
	var named []string
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range key.FindAllStringSubmatch(string(text), -1) {
			k := index.ReplaceAllString(m[1], "")
			section, _, _ := strings.Cut(k, ".")
			switch {
			case !sections[section] || notKeys.MatchString(k) && !known[k]:
			case known[k]:
				named = append(named, k)
			default:
				t.Errorf("%s names the key %s, which there is not", page, k)
			}
		}
	}
	if !slices.Contains(named, "license.no_overage") || len(named) < 100 {
		t.Errorf("only %d keys are found in the pages", len(named))
	}
}
