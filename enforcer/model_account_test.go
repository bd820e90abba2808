package enforcer

// tooMany reports whether a user may not have n more of what there are most of, one user never more than is left for
// others.
func (m *model) tooMany(u User, most, n int, of func(*User) int) bool {
	if most == 0 {
		return false
	}
	own, left := of(&u)+n, most-of(nil)-n
	return left < 0 || own > left && own > 1
}

func (m *model) tooMuch(u User, n int) bool {
	return n > 0 && m.tooMany(u, m.options.MaxBytes, n, m.bytesOf)
}

// leasesOf counts what a user holds, or all hold; likewise tokensOf, waitersOf and bytesOf.
func (m *model) leasesOf(u *User) (n int) {
	for _, l := range m.leases {
		if u == nil || l.holders[0].Who() == *u {
			n++
		}
	}
	return n
}

func (m *model) tokensOf(u *User) (n int) {
	for _, t := range m.tokens {
		if u == nil || t.who == *u {
			n++
		}
	}
	return n
}

func (m *model) waitersOf(u *User) (n int) {
	for _, w := range m.queue {
		if u == nil || w.r.Caller.Who() == *u {
			n++
		}
	}
	return n
}

func (m *model) bytesOf(u *User) (n int) {
	for _, l := range m.leases {
		if u == nil || l.holders[0].Who() == *u {
			n += kept(l.labels, l.data, len(l.holders)-1)
		}
	}
	for _, w := range m.queue {
		if u == nil || w.r.Caller.Who() == *u {
			n += keptWaiting(w.r)
		}
	}
	return n
}

func kept(labels map[string]string, d *Data, others int) int {
	n := others * holderBytes
	for k, v := range labels {
		n += len(k + v)
	}
	if d != nil {
		n += len(d.Bytes)
	}
	return n
}

func keptWaiting(r *Acquire) int {
	n := kept(r.Labels, r.Data, 0) + len(r.Token+r.Version)
	for _, it := range r.Items {
		n += len(it.Pool)
	}
	return n
}
