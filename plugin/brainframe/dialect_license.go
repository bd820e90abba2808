package brainframe

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// fileName is the document that a key is installed as. The next key takes its place.
const fileName = "brainframe.lic"

// confirmWithin bounds the time in which a licence's upstream must confirm a key: clients wait for 30 s.
const confirmWithin = 20 * time.Second

// putLicense installs a licence key and shows the licence that is in force then. A key that does not verify, has
// expired, cannot count here, or cannot be checked in, changes nothing: what is in force stays.
func (x *request) putLicense() *answer {
	if !x.MayInstall(x.r, x.user) {
		return failed(http.StatusForbidden, InsufficientRole, "this user may not install licences; "+
			installerConfigured)
	}
	key, err := io.ReadAll(x.r.Body)
	switch {
	case large(err):
		return failed(http.StatusRequestEntityTooLarge, LicenseInvalid, "the licence key has more than 1 MiB")
	case err != nil:
		return failed(http.StatusBadRequest, InvalidFormat, "the licence key could not be read")
	}
	document, a := x.good(key)
	if a != nil {
		return a
	}
	if a := x.confirm(document); a != nil {
		return a
	}
	if d := x.Install(x.r.Context(), x.user, document, fileName); d != nil {
		return denied(d)
	}
	return x.license()
}

// good returns the document to install for a key, or why it cannot be installed: the key itself or, where a key of
// another system signed what it holds, that.
func (x *request) good(key []byte) ([]byte, *answer) {
	wrapped, err := Unwrap(key)
	if err != nil {
		return nil, failed(http.StatusBadRequest, LicenseInvalid, "the licence key: "+err.Error())
	}
	document, j := key, x.Would(key, fileName)
	if j.Problem != nil {
		if other := x.Would(wrapped, fileName); other.Problem == nil {
			document, j = wrapped, other
		}
	}
	switch {
	case j.Problem != nil:
		return nil, failed(http.StatusBadRequest, LicenseInvalid, "the licence key: "+j.Problem.Reason)
	case j.Code == enforcer.Expired:
		return nil, failed(http.StatusForbidden, LicenseExpired, j.Reason)
	case !j.UpstreamMayHeal(enforcer.Upstream{}):
		return nil, failed(http.StatusBadRequest, LicenseInvalid, j.Reason)
	}
	return document, nil
}

// confirm has the upstream of a document's licence say that it is good, where the licence demands that, and looks
// whether it would count then; nil: it would.
func (x *request) confirm(document []byte) *answer {
	ctx, cancel := context.WithTimeout(x.r.Context(), confirmWithin)
	defer cancel()
	var e *plugin.Error
	switch err := x.Confirm(ctx, document); {
	case errors.As(err, &e):
		return unconfirmed(e)
	case err != nil:
		return unconfirmed(plugin.Transiently("%v", err))
	}
	switch j := x.Would(document, fileName); {
	case j.Code == enforcer.Expired:
		return failed(http.StatusForbidden, LicenseExpired, j.Reason)
	case j.Code.State() != enforcer.StateValid:
		return failed(http.StatusBadRequest, LicenseInvalid, j.Reason)
	case !j.InForce:
		return failed(http.StatusBadRequest, LicenseInvalid, "the licence would not count here: another one, issued "+
			"later, is in force, or it adds to a licence that is not here")
	}
	return nil
}
