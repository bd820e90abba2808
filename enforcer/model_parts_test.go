package enforcer

// per is how many parts a pool's slots have.
func (m *model) per(pool string) int64 { return max(1, m.pools[pool].Quantum) }

// weigh is how many parts an item takes.
func (m *model) weigh(it Item) int64 {
	n := it.N * m.per(it.Pool)
	for of := max(1, it.Of); ; n++ {
		if n%of == 0 {
			return n / of
		}
	}
}

// slots is how many slots hold so many parts.
func (m *model) slots(pool string, parts int64) (n int64) {
	for n*m.per(pool) < parts {
		n++
	}
	return n
}

// divides reports whether a pool's slots have the parts that an item is of.
func (m *model) divides(it Item) bool {
	return it.Of < 2 || m.per(it.Pool) > 1 && m.per(it.Pool)%it.Of == 0
}
