package awslm

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/licensemanager/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

func misconfigured(hint, format string, args ...any) *plugin.Error {
	return &plugin.Error{Class: plugin.Misconfigured, Reason: fmt.Sprintf(format, args...), Hint: hint}
}

func refused(code enforcer.Code, system, hint, format string, args ...any) *plugin.Error {
	return &plugin.Error{Class: plugin.Refused, Code: code, Reason: fmt.Sprintf(format, args...), Hint: hint,
		SystemCode: system}
}

// apiCode returns an error's code; empty: it is no answer of the service.
func apiCode(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// is reports whether an error has one of the codes.
func is(err error, codes ...string) bool {
	got := apiCode(err)
	for _, c := range codes {
		if got == c {
			return true
		}
	}
	return false
}

// classify turns an error into one of the contract, for calls that do not know better. No error about the caller or the
// request makes a licence bad, and an unknown error counts as no answer. shown is the part of it that may be shown.
func classify(ctx context.Context, op string, shown, err error) *plugin.Error {
	code := apiCode(err)
	e := plugin.Transiently("%s: %s", op, reason(shown))
	e.SystemCode = code
	mend := func(hint string) *plugin.Error {
		e.Class, e.Hint = plugin.Misconfigured, hint
		return e
	}
	switch code {
	case "":
		return unanswered(ctx, e, err)
	case ErrRateLimit, ErrServerInternal, ErrConflict, ErrResourceLimit, "ThrottlingException", "Throttling",
		"RequestLimitExceeded", "ServiceUnavailable", "InternalFailure", "RequestTimeout":
		return e
	case ErrAccessDenied, "AccessDenied":
		if strings.Contains(e.Reason, "ervice role") {
			return mend(
				"the AWS account was never onboarded: open License Manager in the console once, or aws iam " +
					"create-service-linked-role --aws-service-name license-manager.amazonaws.com")
		}
		return mend("allow the role " + op +
			" (the policy is in docs/systems/awslm.md), and check that the grant is accepted and activated")
	case ErrAuthorization:
		return mend("the grant or the IAM policy does not allow it; see docs/systems/awslm.md")
	case ErrRedirect:
		e.Hint = "call the licence's home Region"
		var r *types.RedirectException
		if errors.As(err, &r) && r.Location != nil {
			e.Hint += ": " + clip(*r.Location, 200)
		}
		return mend(e.Hint)
	case "UnrecognizedClientException", "InvalidSignatureException", "SignatureDoesNotMatch", "InvalidClientTokenId",
		"ExpiredToken", "ExpiredTokenException",
		"MissingAuthenticationToken", "MissingAuthenticationTokenException", "IncompleteSignature":
		return mend("check the AWS credentials and the clock")
	case ErrUnknownOperation:
		return mend("check that the endpoint is that of License Manager")
	}
	var status *smithyhttp.ResponseError
	if errors.As(err, &status) &&
		(status.HTTPStatusCode() >= 500 || status.HTTPStatusCode() == http.StatusTooManyRequests) {
		return e
	}
	return mend("")
}

// unanswered explains why there is no answer of the service.
func unanswered(ctx context.Context, e *plugin.Error, err error) *plugin.Error {
	var cert *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var status *smithyhttp.ResponseError
	switch {
	case errors.As(err, &cert), errors.As(err, &unknown):
		e.Class, e.Hint = plugin.Misconfigured,
			"check the certificate of the proxy between, or name its CA under upstream.ca_file"
	case ctx.Err() != nil:
		e.Reason = strings.SplitN(e.Reason, ":", 2)[0] + ": no answer in time"
	case errors.As(err, &status) && status.HTTPStatusCode() >= 300 && status.HTTPStatusCode() < 500:
		e.Hint = fmt.Sprintf("HTTP status %d without an error of License Manager; check for a proxy between",
			status.HTTPStatusCode())
	}
	return e
}

func isNetwork(err error) bool {
	var u *url.Error
	var n net.Error
	return errors.As(err, &u) || errors.As(err, &n) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, context.Canceled)
}

// reason returns an error's innermost sentence, without the operations, request ids and tries that the SDK adds.
func reason(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		s := api.ErrorCode()
		if m := api.ErrorMessage(); m != "" {
			s += ": " + m
		}
		return s
	}
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err.Error()
	}
	var de *smithy.DeserializationError
	if errors.As(err, &de) {
		return "its answer cannot be read"
	}
	return err.Error()
}
