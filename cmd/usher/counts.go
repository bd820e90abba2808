package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/usher"
)

// counts sets the pools, meters, features and the cap on cores of the claims.
func (o *signFlags) counts(claims *usher.Claims) error {
	if claims.Pools == nil {
		claims.Pools = map[string]usher.Pool{}
	}
	if claims.Meters == nil {
		claims.Meters = map[string]usher.Meter{}
	}
	if claims.Features == nil {
		claims.Features = map[string]usher.Feature{}
	}
	err := pairs("limit", o.limits, func(name, v string) error {
		n, err := limitOf(v)
		p := claims.Pools[name]
		p.Max = n
		claims.Pools[name] = p
		return err
	})
	err = errors.Join(err, pairs("meter", o.meters, func(name, v string) error {
		n, err := limitOf(v)
		m := claims.Meters[name]
		m.Max = n
		claims.Meters[name] = m
		return err
	}))
	each := func(flag string, values []string, pool func(*usher.Pool, string) error,
		meter func(*usher.Meter, string) error) {
		err = errors.Join(err, pairs(flag, values, func(name, v string) error {
			if p, ok := claims.Pools[name]; ok && pool != nil {
				err := pool(&p, v)
				claims.Pools[name] = p
				return err
			}
			if m, ok := claims.Meters[name]; ok && meter != nil {
				err := meter(&m, v)
				claims.Meters[name] = m
				return err
			}
			return fmt.Errorf("%s is not a limit or meter that this flag is for", name)
		}))
	}
	number := func(to *int64, v string) (err error) { *to, err = strconv.ParseInt(v, 10, 64); return }
	each("overage", o.overage, func(p *usher.Pool, v string) error {
		return number(&p.Overage, v)
	}, func(m *usher.Meter, v string) error { return number(&m.Overage, v) })
	each("count-by", o.countBy, func(p *usher.Pool, v string) error { p.CountBy = v; return nil }, nil)
	each("unit", o.units, func(p *usher.Pool, v string) error {
		p.Unit = v
		return nil
	}, func(m *usher.Meter, v string) error { m.Unit = v; return nil })
	each("resets", o.resets, nil, func(m *usher.Meter, v string) error { m.Resets = v; return nil })
	for _, name := range o.adjustable {
		m, ok := claims.Meters[name]
		if !ok {
			err = errors.Join(err, fmt.Errorf("--adjustable %s: the licence has no such meter", name))
			continue
		}
		m.Adjustable = true
		claims.Meters[name] = m
	}
	if err != nil {
		return fail(exitUsage, "", "%w", err)
	}
	if o.scope != "" {
		for name, p := range claims.Pools {
			p.Scope = o.scope
			claims.Pools[name] = p
		}
		for name, m := range claims.Meters {
			m.Scope = o.scope
			claims.Meters[name] = m
		}
	}
	return o.featuresAndCores(claims)
}

// featuresAndCores sets the features and the cap on cores of the claims.
func (o *signFlags) featuresAndCores(claims *usher.Claims) error {
	seen := map[string]bool{}
	for _, f := range o.features {
		name, v, given := strings.Cut(f, "=")
		if seen[name] {
			return usage("--feature %s: %s is given twice; keep one of them", f, name)
		}
		seen[name] = true
		claims.Features[name] = usher.Feature{Value: featureOf(v, given)}
	}
	if o.cores != "" {
		n, kind, _ := strings.Cut(o.cores, ":")
		m, err := strconv.ParseInt(n, 10, 64)
		if err != nil {
			return usage("--cores: %q is not a number of cores, such as 16 or 16:logical", o.cores)
		}
		claims.Cores = &usher.Cores{Max: m, Count: kind}
	}
	return nil
}

func pairs(flag string, values []string, do func(name, value string) error) error {
	var errs []error
	seen := map[string]bool{}
	for _, v := range values {
		name, value, ok := strings.Cut(v, "=")
		if seen[name] {
			errs = append(errs, fmt.Errorf("--%s %s: %s is given twice; keep one of them", flag, v, name))
			continue
		}
		seen[name] = true
		if !ok || name == "" || value == "" {
			errs = append(errs, fmt.Errorf("--%s: %q is not NAME=VALUE", flag, v))
			continue
		}
		if err := do(name, value); err != nil {
			errs = append(errs, fmt.Errorf("--%s %s: %w", flag, v, err))
		}
	}
	return errors.Join(errs...)
}

func limitOf(v string) (*int64, error) {
	if v == "unlimited" {
		return nil, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 {
		return nil, fmt.Errorf("%q is neither a whole number of at least 0 nor unlimited", v)
	}
	return &n, nil
}

// featureOf reads a feature's value: a boolean, a number with or without a unit after a colon, else a text.
func featureOf(v string, given bool) enforcer.Value {
	if !given || v == "true" || v == "on" {
		return enforcer.Value{Kind: enforcer.KindBool, Bool: true}
	}
	if v == "false" || v == "off" {
		return enforcer.Value{Kind: enforcer.KindBool}
	}
	n, unit, _ := strings.Cut(v, ":")
	if f, err := strconv.ParseFloat(n, 64); err == nil && f-f == 0 {
		return enforcer.Value{Kind: enforcer.KindNumber, Number: f, Unit: unit}
	}
	return enforcer.Value{Kind: enforcer.KindText, Text: v}
}
