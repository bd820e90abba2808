package fleet

// entered takes note that this agent has joined the fleet, in which it has blocks of these pools.
func (f *Fleet) entered(pools []string) {
	for _, name := range pools {
		f.named(name)
	}
	f.mu.Lock()
	f.joined, f.owns = true, pools
	past := f.cfg.Now() >= f.until
	for _, p := range f.pools {
		if p.known = false; past {
			p.mod = 0 // others may have taken it over
		}
		p.former = nil // one that was seen before may have been in the fleet since, as a copy of this host is
	}
	f.mu.Unlock()
}

// longest returns what has the store know the longest span of any agent, where this agent's is longer. It is the
// last of what res has got.
func (f *Fleet) longest(res *Result) ([]Op, error) {
	most, err := read[longest](res.one(len(res.Got) - 1))
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	own := f.span().Seconds()
	f.seen.TTL = max(f.seen.TTL, most.TTL, own)
	f.mu.Unlock()
	if most.TTL >= own {
		return nil, nil
	}
	return []Op{{Put: f.keys.longest(), Value: text(longest{own})}}, nil
}
