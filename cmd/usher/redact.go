package main

import (
	"fmt"
	"log/slog"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/redact"
)

// spoken is redacted for a log that people read: spans of time are in words, too.
func spoken(groups []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		return slog.String(a.Key, enforcer.Span(a.Value.Duration()))
	}
	return redacted(groups, a)
}

// redacted hides secrets and e-mail addresses in every log line, because others read the log.
func redacted(_ []string, a slog.Attr) slog.Attr {
	a.Value = a.Value.Resolve()
	switch a.Value.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(redact.Text(a.Value.String()))
	case slog.KindAny:
		switch v := a.Value.Any().(type) {
		case *slog.Source, slog.Level, nil:
		case error:
			a.Value = slog.StringValue(redact.Text(v.Error()))
		case fmt.Stringer:
			a.Value = slog.StringValue(redact.Text(v.String()))
		default:
			a.Value = slog.AnyValue(redact.Texts(v))
		}
	default:
	}
	return a
}
