package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/usher-agent/usher/plugin/textual"
)

// All that the commands print passes one of the functions of this file: labels, names, file names, reasons and what
// other programs say are foreign texts, and none of them reaches a terminal as a command to it. A test holds the other
// files to that.

// fprintf prints for people. The arguments are foreign texts, each for one line: see [textual.Printable]. The format is
// the program's own.
func fprintf(w io.Writer, format string, args ...any) error {
	_, err := io.WriteString(w, textual.Screen(fmt.Sprintf(format, printable(args)...)))
	return err
}

// fprintln prints a line for people, with arguments as those of fprintf.
func fprintln(w io.Writer, args ...any) error {
	_, err := io.WriteString(w, textual.Screen(fmt.Sprintln(printable(args)...)))
	return err
}

// lines prints a text of the program's own that has several lines, such as a receipt in its armour.
func lines(w io.Writer, text string) error {
	_, err := io.WriteString(w, textual.Screen(strings.TrimSuffix(text, "\n"))+"\n")
	return err
}

// canvas draws pictures on a terminal: on a screen of its own, which leaves what was there before as it was.
type canvas struct {
	to         io.Writer
	was        string
	wide, high int
}

// The commands to a terminal that top gives (ECMA-48, and xterm's alternate screen); nothing foreign is among them.
const (
	screenBegin = "\x1b[?1049h\x1b[?25l\x1b[2J"
	screenEnd   = "\x1b[?25h\x1b[?1049l"
	screenHome  = "\x1b[H"
	screenClear = "\x1b[2J"
	restOfLine  = "\x1b[K"
	restOfAll   = "\x1b[J"
)

func (s *canvas) begin() { _, _ = io.WriteString(s.to, screenBegin) }
func (s *canvas) end()   { _, _ = io.WriteString(s.to, screenEnd) }

// paint draws lines, unless they are there already. What a terminal of so many columns and rows has no room for is left
// out: else it would wrap lines, and roll the first of them out of sight. 0: the terminal does not say.
func (s *canvas) paint(all []string, width, height int) error {
	var b strings.Builder
	if height > 0 {
		all = all[:min(len(all), height)]
	}
	for i, line := range all {
		if i > 0 {
			b.WriteString("\r\n")
		}
		line = textual.Printable(line)
		if width > 0 {
			line = cut(line, width)
		}
		b.WriteString(line + restOfLine)
	}
	text := b.String()
	if text == s.was && width == s.wide && height == s.high {
		return nil
	}
	home := screenHome
	if width != s.wide || height != s.high {
		home = screenClear + screenHome
	}
	s.was, s.wide, s.high = text, width, height
	_, err := io.WriteString(s.to, home+text+restOfAll)
	return err
}

// printable returns the arguments with every text among them fit for one line.
func printable(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		switch a := a.(type) {
		case string:
			out[i] = textual.Printable(a)
		case error:
			out[i] = textual.Printable(a.Error())
		case fmt.Stringer:
			out[i] = textual.Printable(a.String())
		case []byte:
			out[i] = textual.Printable(string(a))
		case []string:
			texts := make([]string, len(a))
			for k := range a {
				texts[k] = textual.Printable(a[k])
			}
			out[i] = texts
		default:
			out[i] = a
		}
	}
	return out
}

// printJSON prints a shape of the API.
func (c *cli) printJSON(v any) error { return c.json1(v, "  ") }

// printLine prints a shape of the API on one line.
func (c *cli) printLine(v any) error { return c.json1(v, "") }

func (c *cli) json1(v any, indent string) error {
	text, err := jsonText(v, "", indent)
	if err == nil {
		_, err = io.WriteString(c.out, text)
	}
	return err
}

// jsonText returns a shape of the API as it is printed, with a newline at its end.
func jsonText(v any, prefix, indent string) (string, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetIndent(prefix, indent)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "", err
	}
	return textual.ScreenJSON(b.String()), nil
}

// table prints rows in aligned columns.
func (c *cli) table(rows ...[]string) error {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 4, 2, ' ', 0)
	for _, r := range rows {
		cells := make([]string, len(r))
		for i, cell := range r {
			cells[i] = textual.Printable(cell)
		}
		// An empty cell keeps its tab, or the columns would end.
		if _, err := io.WriteString(w, strings.Join(cells, "\t")+"\n"); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(text.String()) {
		if err := fprintln(c.out, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// shellWord returns a name as it is typed at a shell.
func shellWord(name string) string {
	odd := func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("/._-+:@%", r)
	}
	if name == "" || strings.ContainsFunc(name, odd) {
		return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
	}
	return name
}

// screened is an output whose writer writes whole lines, such as a log's: none of them moves a terminal that shows it.
type screened struct {
	to io.Writer
	by func(string) string
}

func (s screened) Write(b []byte) (int, error) {
	if _, err := io.WriteString(s.to, s.by(string(b))); err != nil {
		return 0, err
	}
	return len(b), nil
}
