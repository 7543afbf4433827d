package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"strconv"
	"sync"
	"time"
)

// How long a client rests after a failure before it tries the same message again.
const rest = 200 * time.Millisecond

// Ledger is what one run of the load has come to.
type Ledger struct {
	// Acknowledged by token, with the digest of what was sent.
	Acknowledged map[string]string `json:"acknowledged"`
	// Unknown are the tokens whose reply never came after the final dot; they are not tried again.
	Unknown []string `json:"unknown"`
	// Refused are permanent refusals in the server's words.
	Refused []string `json:"refused"`
	// Transient counts replies 4xx, Lost connections that failed or broke before the final dot: both are tried again.
	Transient int `json:"transient"`
	Lost      int `json:"lost"`
	// LongestPauseMilliseconds is the longest time in which no message was acknowledged.
	LongestPauseMilliseconds int64 `json:"longestPauseMilliseconds"`
	// Milliseconds the run has taken so far.
	Milliseconds int64 `json:"milliseconds"`
	// Troubles are the first few failures of each kind, in words.
	Troubles []string `json:"troubles"`
}

// Run is one load: clients that each hold a session and send at a common rate until they are told to stop.
type Run struct {
	mutex   sync.Mutex
	ledger  Ledger
	started time.Time
	last    time.Time
	stop    chan struct{}
	clients sync.WaitGroup
}

func newRun(server Server, prefix string, rate, clients int) *Run {
	now := time.Now()
	run := &Run{started: now, last: now, stop: make(chan struct{}), ledger: Ledger{Acknowledged: map[string]string{}}}
	period := time.Duration(clients) * time.Second / time.Duration(rate)
	for client := range clients {
		run.clients.Go(func() { run.client(server, fmt.Sprintf("%s-%d", prefix, client), period) })
	}
	return run
}

// client sends one message a period, however long each takes: what was missed is made up for.
func (r *Run) client(server Server, prefix string, period time.Duration) {
	var session *Session
	next := time.Now()
	for number := 0; ; number++ {
		select {
		case <-r.stop:
			if session != nil {
				session.Close()
			}
			return
		case <-time.After(time.Until(next)):
		}
		// A backlog of a whole minute is not made up for: the rate is to hold again after an outage, not to double.
		next = next.Add(period)
		if late := time.Since(next); late > 5*time.Second {
			next = time.Now()
		}
		session = r.deliver(server, session, prefix+"-"+strconv.Itoa(number))
	}
}

// deliver sends one message and tries until its fate is known, or the run ends; it answers the session to go on with.
func (r *Run) deliver(server Server, session *Session, token string) *Session {
	for {
		err := error(nil)
		if session == nil {
			session, err = server.Open()
		}
		if err == nil {
			err = session.Send(token)
		}
		if r.note(token, err) {
			if err == nil {
				return session
			}
			if session != nil {
				session.Close()
			}
			return nil
		}
		if session != nil {
			session.Close()
			session = nil
		}
		select {
		case <-r.stop:
			return nil
		case <-time.After(rest):
		}
	}
}

// note enters an outcome and answers whether the message is settled.
func (r *Run) note(token string, err error) bool {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if err != nil && len(r.ledger.Troubles) < 50 {
		r.ledger.Troubles = append(r.ledger.Troubles, fmt.Sprintf("%d ms: %v", time.Since(r.started).Milliseconds(), err))
	}
	switch {
	case err == nil:
		r.ledger.Acknowledged[token] = digest(token)
		r.pause()
		return true
	case errors.Is(err, errUnknown):
		r.ledger.Unknown = append(r.ledger.Unknown, token)
		return true
	case refusedForGood(err):
		r.ledger.Refused = append(r.ledger.Refused, err.Error())
		return true
	case isReply(err):
		r.ledger.Transient++
	default:
		r.ledger.Lost++
	}
	return false
}

func (r *Run) pause() {
	now := time.Now()
	r.ledger.LongestPauseMilliseconds = max(r.ledger.LongestPauseMilliseconds, now.Sub(r.last).Milliseconds())
	r.last = now
}

// write answers the ledger as it stands.
func (r *Run) write(response http.ResponseWriter) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.ledger.Milliseconds = time.Since(r.started).Milliseconds()
	_ = json.NewEncoder(response).Encode(r.ledger) // whoever asked is gone
}

// serveLoad answers orders until the process ends:
//
//	POST /start?prefix=P&rate=N&clients=N   begins a run
//	GET  /acknowledged                      how many messages of the present run are acknowledged
//	POST /stop                              ends the run and answers its Ledger
func serveLoad(server Server, control string) error {
	var run *Run
	var mutex sync.Mutex
	handle := func(pattern string, answer func(http.ResponseWriter, *http.Request)) {
		http.HandleFunc(pattern, func(response http.ResponseWriter, request *http.Request) {
			mutex.Lock()
			defer mutex.Unlock()
			if run == nil && pattern != "POST /start" {
				http.Error(response, "no run: POST /start first", http.StatusConflict)
				return
			}
			answer(response, request)
		})
	}
	handle("POST /start", func(response http.ResponseWriter, request *http.Request) {
		query := request.URL.Query()
		rate, rateError := strconv.Atoi(query.Get("rate"))
		clients, clientsError := strconv.Atoi(query.Get("clients"))
		if run != nil || rateError != nil || clientsError != nil || rate < 1 || clients < 1 {
			http.Error(response, "a run is on, or rate and clients are no numbers", http.StatusBadRequest)
			return
		}
		run = newRun(server, query.Get("prefix"), rate, clients)
	})
	handle("GET /acknowledged", func(response http.ResponseWriter, _ *http.Request) {
		run.mutex.Lock()
		defer run.mutex.Unlock()
		fmt.Fprint(response, len(run.ledger.Acknowledged))
	})
	handle("POST /stop", func(response http.ResponseWriter, _ *http.Request) {
		run.mutex.Lock()
		run.pause() // the one that is on counts too
		run.mutex.Unlock()
		close(run.stop)
		run.clients.Wait()
		run.write(response)
		run = nil
	})
	return http.ListenAndServe(control, nil)
}

func isReply(err error) bool {
	var reply *textproto.Error
	return errors.As(err, &reply)
}
