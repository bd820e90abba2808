package awstest

import (
	"slices"
	"strconv"
	"strings"

	"github.com/usher-agent/usher/plugin/awslm"
)

func (s *Server) license(arn string) (*awslm.License, *awslm.Fault) {
	if l := s.licenses[arn]; l != nil {
		return l, nil
	}
	return nil, &awslm.Fault{Code: awslm.ErrInvalidParameter, Message: "There is no such licence."}
}

func (s *Server) usage(r *awslm.LicenseRequest) (any, *awslm.Fault) {
	l, f := s.license(r.LicenseArn)
	if f != nil {
		return nil, f
	}
	var out awslm.UsageResponse
	for _, e := range l.Entitlements {
		u := awslm.EntitlementUsage{Name: e.Name, Unit: e.Unit,
			ConsumedValue: strconv.FormatInt(s.used(l.LicenseArn, e.Name), 10)}
		if e.MaxCount != nil {
			u.MaxCount = strconv.FormatInt(*e.MaxCount, 10)
		}
		out.LicenseUsage.EntitlementUsages = append(out.LicenseUsage.EntitlementUsages, u)
	}
	return out, nil
}

// list answers two licences a page, so that there is more than one.
func (s *Server) list(r *awslm.ListRequest) (any, *awslm.Fault) {
	var all []awslm.License
	for _, l := range s.licenses {
		of := map[string]string{awslm.FilterSKU: l.ProductSKU, awslm.FilterStatus: l.Status,
			awslm.FilterFingerprint: l.Issuer.KeyFingerprint, awslm.FilterIssuer: l.Issuer.Name,
			awslm.FilterBeneficiary: l.Beneficiary}
		if l.ReceivedMetadata == nil || len(r.LicenseArns) > 0 && !slices.Contains(r.LicenseArns, l.LicenseArn) ||
			slices.ContainsFunc(r.Filters, func(f awslm.Filter) bool {
				return !slices.Contains(f.Values, of[f.Name])
			}) {
			continue
		}
		all = append(all, *l)
	}
	slices.SortFunc(all, func(a, b awslm.License) int { return strings.Compare(a.LicenseArn, b.LicenseArn) })
	from, _ := strconv.Atoi(r.NextToken)
	to := min(from+2, len(all))
	out := awslm.ListResponse{Licenses: all[min(from, to):to]}
	if to < len(all) {
		out.NextToken = strconv.Itoa(to)
	}
	return out, nil
}
