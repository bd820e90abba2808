package enforcer

import (
	"fmt"
	"testing"
	"time"
)

func TestLimits(t *testing.T) {
	const most = Limit(1<<63 - 1)
	for _, row := range []struct{ a, b, plus, least Limit }{
		{1, 2, 3, 1}, {0, 0, 0, 0}, {Unlimited, 5, Unlimited, 5}, {5, Unlimited, Unlimited, 5},
		{Unlimited, Unlimited, Unlimited, Unlimited},
		{most, 1, most, 1}, {most, most, most, most},
	} {
		if got := row.a.Plus(row.b); got != row.plus {
			t.Errorf("%s + %s = %s", row.a, row.b, got)
		}
		if got := row.a.Min(row.b); got != row.least {
			t.Errorf("the least of %s and %s is %s", row.a, row.b, got)
		}
	}
	if fmt.Sprint(Unlimited) != "unlimited" || Unlimited.Covers(1<<62) != true || Limit(3).Covers(4) {
		t.Error("Unlimited covers all, and 3 does not cover 4")
	}
}

func TestPeriod(t *testing.T) {
	at := func(s string) time.Time {
		t.Helper()
		out, err := time.Parse(time.DateTime, s)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, row := range []struct {
		p          Period
		from, want string
		words      string
	}{
		{Period{Every: 10 * time.Minute}, "2026-01-31 12:00:00", "2026-01-31 12:10:00", "10 minutes"},
		{Period{Every: 7 * aDay}, "2026-02-25 12:00:00", "2026-03-04 12:00:00", "7 days"},
		{Period{Months: 1}, "2026-01-31 12:00:00", "2026-02-28 12:00:00", "1 month"},
		{Period{Months: 1}, "2026-02-28 12:00:00", "2026-03-28 12:00:00", "1 month"},
		{Period{Months: 12}, "2028-02-29 00:00:00", "2029-02-28 00:00:00", "1 year"},
		{Period{Months: 48}, "2028-02-29 00:00:00", "2032-02-29 00:00:00", "4 years"},
		{Period{Months: 3}, "2026-12-31 23:59:59", "2027-03-31 23:59:59", "3 months"},
	} {
		if got := row.p.After(at(row.from)); !got.Equal(at(row.want)) || row.p.String() != row.words {
			t.Errorf("%s after %s is %v, want %s (%s)", row.p, row.from, got, row.want, row.words)
		}
	}
}
