package plugin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// RetryAfter returns how long a Retry-After header asks to wait (RFC 9110, 10.2.3), at most [MaxRetryAfter]: seconds,
// or a date measured from now; 0 where no header can be read.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	value := h.Get("Retry-After")
	if n, err := strconv.ParseUint(value, 10, 31); err == nil {
		return min(time.Duration(n)*time.Second, MaxRetryAfter)
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(0, at.Sub(now)), MaxRetryAfter)
	}
	return 0
}

// Unreached says why an upstream's host gave no answer over HTTP. It is Transient, except for a certificate that a
// person must mend.
func Unreached(ctx context.Context, host string, err error) *Error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var cert *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	e := Transiently("%s: %v", host, err)
	switch {
	case errors.As(err, &cert) || errors.As(err, &unknown):
		e.Class, e.Hint = Misconfigured, "check the server's certificate, or name its CA under upstream.ca_file"
	case ctx.Err() != nil:
		e.Reason = host + ": no answer in time"
	}
	return e
}
