package ratelimit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// What one node asks another. The form is a batch of items: a byte for what is
// wanted, then numbers as varints and texts with their length in front.
type op byte

const (
	opTake op = iota + 1
	opWait
	opPut
	opStatus
	opPull    // give up the right to count this key, and say what was counted
	opCopy    // keep a copy, for the case that I die
	opGive    // take over: I leave
	opBye     // I have given away everything
	lastOp    = opBye
	maxItems  = 1024
	maxGen    = 1 << 48 // ms: the year 10889
	maxAnswer = 1 << 20 // bytes of a request or an answer
)

// item is one question. Which fields count depends on the op.
type item struct {
	op     op
	bucket string
	key    string
	n      int64 // tokens; for opPut 0 means all
	most   time.Duration
	lease  int64 // tokens more that the asker would like to have in hand
	// limit replaces that of the rules, where a caller of Envoy's protocol has brought
	// one.
	limit *Limit
	cell  relative
	// id is the question's own, so that one that is asked twice counts once; 0 where
	// that does not matter.
	id uint64
	// owed is what the asker gave out of this key alone, to be counted first.
	owed []owed
}

// relative is a cell without the clock of its node.
type relative struct {
	left int64 // of tat, from now on
	step int64
	size int64
	gen  int64
}

func (c cell) relative(now int64) relative {
	if c.step == 0 {
		return relative{c.tat, 0, c.size, c.gen}
	}
	return relative{max(0, c.tat-now), c.step, c.size, c.gen}
}

func (r relative) cell(now int64) cell {
	if r.step == 0 {
		return cell{r.left, 0, r.size, r.gen}
	}
	return cell{now + r.left, r.step, r.size, r.gen}
}

type result byte

const (
	yes       result = iota
	no               // over the limit
	none             // nothing is known of the key
	busy             // it is just changing its owner: nobody can say now
	noBucket         // the rules here have no such type
	malformed        // the key or the number is out of bounds
)

const lastResult = malformed

// verdict is the answer to an item.
type verdict struct {
	result    result
	unlimited bool
	limit     int64
	remaining int64
	wait      time.Duration
	full      time.Duration
	lease     int64
	cell      relative
	to        string // for opPull: who has the key by now
}

func putText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func encodeItems(items []item) []byte {
	b := make([]byte, 0, 64*len(items)+8)
	b = binary.AppendUvarint(b, uint64(len(items)))
	for _, i := range items {
		b = putText(putText(append(b, byte(i.op)), i.bucket), i.key)
		for _, v := range []int64{i.n, int64(i.most), i.lease, i.cell.left, i.cell.step, i.cell.size, i.cell.gen} {
			b = binary.AppendVarint(b, v)
		}
		b = binary.AppendUvarint(binary.AppendUvarint(b, i.id), uint64(len(i.owed)))
		for _, o := range i.owed {
			b = binary.AppendVarint(binary.AppendUvarint(b, o.id), o.n)
		}
		if i.limit == nil {
			b = append(b, 0)
			continue
		}
		b = append(b, 1)
		for _, v := range []int64{i.limit.Size, i.limit.Per, int64(i.limit.Interval)} {
			b = binary.AppendVarint(b, v)
		}
	}
	return b
}

func encodeVerdicts(all []verdict) []byte {
	b := make([]byte, 0, 32*len(all)+8)
	b = binary.AppendUvarint(b, uint64(len(all)))
	for _, v := range all {
		flags := byte(0)
		if v.unlimited {
			flags = 1
		}
		b = append(b, byte(v.result), flags)
		for _, x := range []int64{v.limit, v.remaining, int64(v.wait), int64(v.full), v.lease, v.cell.left, v.cell.step, v.cell.size, v.cell.gen} {
			b = binary.AppendVarint(b, x)
		}
		b = putText(b, v.to)
	}
	return b
}

// reader reads and remembers the first thing that was wrong.
type reader struct {
	b   []byte
	err error
}

var errShort = errors.New("it ends too early")

func (r *reader) fail(err error) { r.b, r.err = nil, errors.Join(r.err, err) }

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail(errShort)
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail(errShort)
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail(errShort)
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) text(most int) string {
	n := r.uint()
	if n > uint64(most) { // #nosec G115 -- most is a constant
		r.fail(fmt.Errorf("a text has %d bytes; allowed are %d", n, most))
		return ""
	}
	if n > uint64(len(r.b)) {
		r.fail(errShort)
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *reader) count() int {
	n := r.uint()
	if n > maxItems {
		r.fail(fmt.Errorf("%d items; allowed are %d", n, maxItems))
		return 0
	}
	return int(n)
}

// end checks that nothing is left over.
func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		return fmt.Errorf("%d bytes are left over", len(r.b))
	}
	return r.err
}

func (r *reader) relative() relative {
	c := relative{r.int(), r.int(), r.int(), r.int()}
	// What no limit can have led to is nonsense; sums of it would overflow.
	if c.left < 0 || c.left > 2*int64(maxFill) || c.step < 0 || c.step > int64(maxFill) || c.size < 0 || c.size > MaxSize || c.gen < 0 || c.gen > maxGen {
		r.fail(fmt.Errorf("a bucket of %d tokens, %d ns each, lacks %d: no limit allows that", c.size, c.step, c.left))
	}
	return c
}

// owed reads what the asker gave out alone.
func (r *reader) owed() []owed {
	n := r.uint()
	if n > maxOwed {
		r.fail(fmt.Errorf("%d debts of one key; allowed are %d", n, maxOwed))
		return nil
	}
	var out []owed
	for range n {
		o := owed{id: r.uint(), n: r.int()}
		if r.err == nil && (o.n == 0 || o.n < -MaxSize || o.n > MaxSize) {
			r.fail(fmt.Errorf("a debt of %d tokens; allowed are %d to %d without 0", o.n, -MaxSize, MaxSize))
		}
		out = append(out, o)
	}
	return out
}

func decodeItems(raw []byte) ([]item, error) {
	r := &reader{b: raw}
	out := make([]item, 0, min(r.count(), len(raw)/13))
	r = &reader{b: raw}
	for range r.count() {
		i := item{op: op(r.byte()), bucket: r.text(100), key: r.text(MaxKey), n: r.int(), most: time.Duration(r.int()), lease: r.int(), cell: r.relative(), id: r.uint(), owed: r.owed()}
		switch r.byte() {
		case 0:
		case 1:
			l := Limit{Size: r.int(), Per: r.int(), Interval: time.Duration(r.int())}
			if r.err == nil {
				if err := l.check(); err != nil {
					r.fail(err)
				}
			}
			i.limit = &l
		default:
			r.fail(errors.New("no limit and no word that there is none"))
		}
		if r.err == nil && (i.op < opTake || i.op > lastOp) {
			r.fail(fmt.Errorf("nobody knows what %d asks for", i.op))
		}
		if r.err != nil {
			return nil, r.err
		}
		out = append(out, i)
	}
	return out, r.end()
}

func decodeVerdicts(raw []byte) ([]verdict, error) {
	r := &reader{b: raw}
	var out []verdict
	for range r.count() {
		v := verdict{result: result(r.byte())}
		v.unlimited = r.byte() == 1
		v.limit, v.remaining, v.wait, v.full, v.lease = r.int(), r.int(), time.Duration(r.int()), time.Duration(r.int()), r.int()
		v.cell, v.to = r.relative(), r.text(100)
		if r.err == nil && v.result > lastResult {
			r.fail(fmt.Errorf("nobody knows what the answer %d means", v.result))
		}
		if r.err != nil {
			return nil, r.err
		}
		out = append(out, v)
	}
	return out, r.end()
}
