package plugin_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/usher-agent/usher/plugin"
)

// A renewed file is taken, a bad one is not, and its reader hears of both. What is unchanged is not parsed again.
func TestRenewed(t *testing.T) {
	var text string
	var gone, told error
	parsed := 0
	r := &plugin.Renewed[*string]{Told: func(err error) { told = err },
		Read: func() ([]byte, error) { return []byte(text), gone },
		Parse: func(b []byte) (*string, error) {
			parsed++
			if len(b) == 0 {
				return nil, errors.New("it is empty")
			}
			s := string(b)
			return &s, nil
		}}
	if _, err := r.Get(); err == nil || told != nil {
		t.Errorf("a file that never was good: %v, told %v", err, told)
	}
	var last *string
	for _, step := range []struct {
		text string
		gone error
		want string
		told string
	}{{"a", nil, "a", ""}, {"a", nil, "a", ""}, {"", nil, "a", "it is empty"}, {"b", nil, "b", ""},
		{"c", errors.New("no such file"), "b", "no such file"}, {"b", nil, "b", ""}, {"c", nil, "c", ""}} {
		text, gone = step.text, step.gone
		got, err := r.Get()
		if err != nil || *got != step.want {
			t.Fatalf("%+v: %v, %v", step, got, err)
		}
		if (told == nil) != (step.told == "") || told != nil && !strings.Contains(told.Error(), step.told) {
			t.Errorf("%+v: told %v", step, told)
		}
		if last != nil && *last == *got && last != got {
			t.Errorf("%+v: the value is made again", step)
		}
		last = got
	}
	if parsed != 5 {
		t.Errorf("parsed %d times", parsed)
	}
}
