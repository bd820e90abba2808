package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/enforcer"
)

// answered are the questions that the section of each code answers.
var answered = []string{"The user sees:", "What to do:", "Mended when:"}

// sectionsOf returns the sections of a page (### CODE) by their codes, in the order of the page.
func sectionsOf(t *testing.T, page string) (codes []string, texts map[string]string) {
	t.Helper()
	texts = map[string]string{}
	for _, part := range strings.Split("\n"+read(t, page), "\n### ")[1:] {
		code, text, _ := strings.Cut(part, "\n")
		text, _, _ = strings.Cut(text, "\n## ")
		if _, twice := texts[code]; twice {
			t.Errorf("%s has the section %s twice", page, code)
		}
		codes, texts[code] = append(codes, code), text
	}
	return codes, texts
}

// faultOf says what a section of a code lacks; "" if it lacks nothing.
func faultOf(text, first string) string {
	meaning, rest, _ := strings.Cut(strings.TrimSpace(text), "\n\n- **")
	if !strings.HasPrefix(meaning, first) || len(strings.Fields(meaning)) < len(strings.Fields(first))+4 {
		return fmt.Sprintf("it begins with %q, and must say %q and what the code means", meaning, first)
	}
	parts := regexp.MustCompile(`(?m)^- \*\*`).Split("- **"+rest, -1)[1:]
	if len(parts) != len(answered) {
		return fmt.Sprintf("it has %d answers, and must have %q", len(parts), answered)
	}
	for i, label := range answered {
		answer, ok := strings.CutPrefix(parts[i], label+"**")
		if !ok || len(strings.Fields(answer)) < 1 {
			return fmt.Sprintf("%q is not answered", label)
		}
		if !regexp.MustCompile(`[.?]\s*$`).MatchString(answer) {
			return fmt.Sprintf("the answer to %q does not end", label)
		}
	}
	return ""
}

// Every code of the API, of a verdict and of a warning has its section, with what it means, what the product's user
// sees, what the operator does and how to see that it is mended. The codes are the program's own; no section is left of
// a code that is gone.
func TestCodesExplained(t *testing.T) {
	errors, verdicts, warnings := map[string]string{}, map[string]string{}, map[string]string{}
	for c, status := range api.Codes() {
		errors[string(c)] = fmt.Sprintf("Status %d.", status)
	}
	for _, c := range enforcer.Codes() {
		verdicts[string(c)] = fmt.Sprintf("State `%s`.", c.State())
	}
	for _, c := range enforcer.WarningCodes() {
		warnings[string(c)] = ""
	}
	for page, want := range map[string]map[string]string{"errors.md": errors, "verdict-codes.md": verdicts,
		"warnings.md": warnings} {
		codes, texts := sectionsOf(t, "../../docs/"+page)
		for code, first := range want {
			if text, ok := texts[code]; !ok {
				t.Errorf("docs/%s has no section %s", page, code)
			} else if fault := faultOf(text, first); fault != "" {
				t.Errorf("docs/%s#%s: %s", page, code, fault)
			}
		}
		for _, code := range codes {
			if _, ok := want[code]; !ok {
				t.Errorf("docs/%s explains %s, and there is no such code", page, code)
			}
		}
	}
	codes, _ := sectionsOf(t, "../../docs/verdict-codes.md")
	at := map[string]int{}
	for i, c := range enforcer.Codes() {
		at[string(c)] = i
	}
	if !slices.IsSortedFunc(codes, func(a, b string) int { return at[a] - at[b] }) {
		t.Error("docs/verdict-codes.md does not go from the most to the least decisive code")
	}
}

// A section that lacks an answer is found.
func TestSectionFaults(t *testing.T) {
	good := "\nStatus 409. The pool has fewer free slots.\n\n- **The user sees:** that it waits.\n- **What to do:** " +
		"wait for" +
		"\n  a slot.\n- **Mended when:** there is one.\n"
	if fault := faultOf(good, "Status 409."); fault != "" {
		t.Errorf("a good section: %s", fault)
	}
	for name, text := range map[string]string{
		"empty":             "",
		"another status":    strings.Replace(good, "409", "403", 1),
		"no meaning":        strings.Replace(good, "The pool has fewer free slots.", "", 1),
		"an answer missing": strings.Replace(good, "- **What to do:** wait for\n  a slot.\n", "", 1),
		"an empty answer":   strings.Replace(good, " there is one.", "", 1),
		"half an answer":    strings.Replace(good, "there is one.", "there is one and", 1),
		"in another order":  strings.Replace(good, "The user sees", "The product sees", 1),
	} {
		if faultOf(text, "Status 409.") == "" {
			t.Errorf("%s: nothing is wrong with %q", name, text)
		}
	}
}

// The type of a problem leads to the section of its code.
func TestProblemTypes(t *testing.T) {
	t.Parallel()
	anchors := map[string]map[string]bool{}
	for c := range api.Codes() {
		link := api.ProblemPage + string(c)
		page, anchor, _ := strings.Cut(link, "#")
		page, ok := strings.CutPrefix(page, "https://github.com/usher-agent/usher/blob/main/")
		if ok && anchors[page] == nil {
			anchors[page] = anchorsOf(t, "../../"+page)
		}
		if !ok || !anchors[page][anchor] {
			t.Errorf("%s leads nowhere", link)
		}
	}
}

// The entry of each alert says what it means, what the product's user sees, what the operator does, and how to see that
// it is mended. TestAlertsHaveRunbooks has the entries from the alerts.
func TestRunbookAnswers(t *testing.T) {
	entries := strings.Split(read(t, "../../docs/runbooks.md"), "\n## ")[1:]
	for _, entry := range entries {
		name, text, _ := strings.Cut(entry, "\n")
		parts := regexp.MustCompile(`(?m)^- \*\*([A-Z][a-z ]+)\*\*: `).FindAllStringSubmatch(text, -1)
		var labels []string
		for _, p := range parts {
			labels = append(labels, p[1])
		}
		meaning, _, _ := strings.Cut(strings.TrimSpace(text), "\n- ")
		if !slices.Equal(labels, []string{"The user sees", "Look", "Mend", "Mended when"}) || len(meaning) < 20 {
			t.Errorf("docs/runbooks.md: %s answers %q", name, labels)
		}
	}
	if len(entries) < 20 {
		t.Errorf("only %d entries", len(entries))
	}
}
