package desk

import (
	"slices"
)

// ahead reads records while those before them are applied: a start with many leases has two things to do at a time.
// Nothing else may use the replay or its core until end has returned.
type ahead struct {
	into  *replay
	batch []readRecord
	full  chan []readRecord
	empty chan []readRecord
	over  chan error // the first error of applying, when full is closed
	// touched is nothing: see Touch of the core.
	touched byte
}

// The batches of records that are read, and how many records each has.
const (
	batches   = 4
	batchSize = 256
)

func readAhead(into *replay) *ahead {
	a := &ahead{into: into, full: make(chan []readRecord, batches), empty: make(chan []readRecord, batches),
		over: make(chan error, 1)}
	for range batches {
		a.empty <- make([]readRecord, 0, batchSize)
	}
	a.batch = <-a.empty
	go a.run()
	return a
}

// apply reads a record, which is applied soon. An error of applying may come with a later record, or from end.
func (a *ahead) apply(b []byte) error {
	n := len(a.batch)
	a.batch = a.batch[:n+1]
	if t := &a.batch[n]; own(b) {
		*t = readRecord{more: &further{own: slices.Clone(b)}}
	} else if err := decodeRecord(b, a.into.same, t); err != nil {
		a.batch = a.batch[:n]
		return err
	}
	if n+1 < batchSize {
		return nil
	}
	a.full <- a.batch
	a.batch = <-a.empty
	select {
	case err := <-a.over:
		a.over <- err
		return err
	default:
		return nil
	}
}

// end returns when all is applied, or why it is not.
func (a *ahead) end() error {
	a.full <- a.batch
	close(a.full)
	return <-a.over
}

func (a *ahead) run() {
	var failed error
	for batch := range a.full {
		a.touch(batch)
		for i := 0; i < len(batch) && failed == nil; i++ {
			if t := &batch[i]; t.more != nil && t.more.own != nil {
				failed = a.into.applyOwn(t.more.own)
			} else {
				failed = a.into.applyEvent(t)
			}
			if failed != nil {
				a.over <- failed
			}
		}
		a.empty <- batch[:0]
	}
	if failed == nil {
		a.over <- nil
	}
}

// touch has at hand what applying a batch looks at: the places of the leases, and the leases themselves, which another
// processor has just made.
func (a *ahead) touch(batch []readRecord) {
	for i := range batch {
		t := &batch[i]
		if l := t.lease; l != nil {
			a.touched += a.into.core.Touch(&l.ID) + byte(l.TTL) + byte(l.AcquiredAt.Nanosecond()) +
				byte(len(l.Others))
		} else {
			a.touched += a.into.core.Touch(&t.ends)
		}
	}
}
