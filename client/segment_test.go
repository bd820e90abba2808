package client

import (
	"context"
	"errors"
	"testing"
)

// A name is one segment of a path, whatever it is: dots lead nowhere else, and an empty one is said.
func TestNamesAreSegments(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{".": "%2E", "..": "%2E%2E", "a/b": "a%2Fb", "a..": "a..",
		"é ?": "%C3%A9%20%3F"} {
		if got := segment(name); got != want {
			t.Errorf("%q is %q in a path, want %q", name, got, want)
		}
	}
	c := New("/nonexistent")
	for what, call := range map[string]func(context.Context) error{
		"release": func(ctx context.Context) error { return c.Release(ctx, "", false) },
		"drain": func(ctx context.Context) error {
			_, err := c.DrainHost(ctx, "", false)
			return err
		},
	} {
		if err := call(t.Context()); !errors.Is(err, ErrBadRequest) {
			t.Errorf("%s of an empty name: %v", what, err)
		}
	}
}
