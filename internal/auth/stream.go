// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"errors"
	"sync"

	"google.golang.org/grpc"

	"github.com/clipper-serving/clipper/internal/apierror"
)

// Stream is a grpc.StreamServerInterceptor. Every message that comes in is checked as a call would be, and
// so are the credentials, so that a key that is revoked is refused on streams that are open. One message that
// is refused gets its answer, where the protocol has one for it; else the stream ends.
func (g *Gate) Stream(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	r := ruleOf(info.FullMethod)
	if r.need == everyone {
		return handler(service, stream)
	}
	s := &guarded{ServerStream: stream, gate: g, rule: r, caller: anonymous, many: info.IsClientStream, passes: map[uint64][]pass{}}
	if g.Enabled() {
		var err error
		if s.caller, s.credential, err = g.caller(stream.Context(), nil); err != nil {
			return err
		}
		if r.application == nil { // Else it depends on the messages.
			if err := g.check(s.caller, r, nil); err != nil {
				return err
			}
		}
	}
	defer s.end()
	return handler(service, s)
}

// guarded is a stream whose messages are checked.
type guarded struct {
	grpc.ServerStream
	gate       *Gate
	rule       *rule
	credential string
	many       bool // The client sends more than one message.

	caller *Caller // Of the one who receives.

	sending sync.Mutex // Handlers and refusals send.
	ended   bool       // Guarded by sending.

	mu     sync.Mutex
	passes map[uint64][]pass // Of the messages that have no answer yet, by their sequence.
}

var errEnded = errors.New("the stream has ended")

// sequence returns what a message and its answer have in common.
func sequence(m any) uint64 {
	if s, ok := m.(interface{ GetSequence() uint64 }); ok {
		return s.GetSequence()
	}
	return 0
}

// RecvMsg implements grpc.ServerStream.
func (s *guarded) RecvMsg(m any) error {
	for {
		if err := s.ServerStream.RecvMsg(m); err != nil {
			return err
		}
		if err := s.again(); err != nil {
			return err
		}
		err := s.gate.check(s.caller, s.rule, m)
		var p pass
		if err == nil {
			p, err = s.gate.enter(s.caller, s.rule, m)
		}
		switch {
		case err == nil:
			if p.queries > 0 {
				s.mu.Lock()
				s.passes[sequence(m)] = append(s.passes[sequence(m)], p)
				s.mu.Unlock()
			}
			return nil
		case s.rule.refuse == nil:
			return err
		}
		if err := s.send(s.rule.refuse(m, err)); err != nil {
			return err
		}
	}
}

// again checks the credentials as they are now.
func (s *guarded) again() error {
	if !s.gate.Enabled() {
		return nil
	}
	c, err := s.gate.authenticate(s.Context(), s.credential)
	if err == nil {
		s.caller = c
	}
	return err
}

// SendMsg implements grpc.ServerStream.
func (s *guarded) SendMsg(m any) error {
	if !s.many && s.gate.Enabled() {
		// What goes on by itself, such as logs, ends with the credentials.
		if _, err := s.gate.authenticate(s.Context(), s.credential); err != nil {
			return err
		}
	}
	if s.rule.queries != nil {
		s.release(sequence(m))
	}
	return s.send(m)
}

func (s *guarded) send(m any) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	if s.ended {
		return apierror.From(errEnded)
	}
	return s.ServerStream.SendMsg(m)
}

// release ends the queries of a message that has its answer.
func (s *guarded) release(sequence uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting := s.passes[sequence]
	if len(waiting) == 0 {
		return
	}
	waiting[0].end()
	if len(waiting) == 1 {
		delete(s.passes, sequence)
		return
	}
	s.passes[sequence] = waiting[1:]
}

// end is called when the handler has returned. Who still receives may not send any more.
func (s *guarded) end() {
	s.sending.Lock()
	s.ended = true
	s.sending.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, waiting := range s.passes {
		for _, p := range waiting {
			p.end()
		}
	}
	clear(s.passes)
}
