package enforcer

// pageSize is how many entries a page of a paged list has.
const pageSize = 512

// paged is a list of entries that grows and shrinks by pages, so that it never stops to copy what is in it, and takes
// no memory for what once was. A zero one is empty.
type paged[T any] struct {
	pages [][]T // all but the first have pageSize entries or room for them
	n     int
}

func (l *paged[T]) len() int { return l.n }

// at returns the place of an entry, which is good until the next push or pop.
func (l *paged[T]) at(i int) *T { return &l.pages[i/pageSize][i%pageSize] }

// push adds an entry at the end.
func (l *paged[T]) push(x T) {
	page := l.n / pageSize
	if page == len(l.pages) {
		var p []T
		if page > 0 { // a short list is as long as it must be
			p = make([]T, 0, pageSize)
		}
		l.pages = append(l.pages, p)
	}
	l.pages[page] = append(l.pages[page], x)
	l.n++
}

// pop takes the last entry off.
func (l *paged[T]) pop() T {
	l.n--
	page := &l.pages[l.n/pageSize]
	last := l.n % pageSize
	x := (*page)[last]
	clear((*page)[last:])
	*page = (*page)[:last]
	// One empty page stays, so that no entry that comes and goes makes one each time.
	if used := (l.n + pageSize - 1) / pageSize; len(l.pages) > used+1 {
		l.pages[len(l.pages)-1] = nil
		l.pages = l.pages[:len(l.pages)-1]
	}
	if l.n == 0 {
		l.pages = nil
	}
	return x
}
