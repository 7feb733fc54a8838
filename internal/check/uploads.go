package check

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"im-services/internal/imclient"
)

// uploadSize is the length of every file that is sent here: one of another
// length in the folder of an own cluster is a part of one.
const uploadSize = 48 << 10

var uploadsClient = &http.Client{Timeout: callLimit, Transport: &http.Transport{DisableKeepAlives: true}}

// uploadFiles sends files in the name of actor 0 until ctx ends.
func (r *run) uploadFiles(ctx context.Context) {
	a, rng := r.actors[0], prng(r.o.Seed, "uploads", 0)
	content := make([]byte, uploadSize)
	for n := 0; ctx.Err() == nil; n++ {
		for i := range content {
			content[i] = byte(rng.Uint32())
		}
		name := fmt.Sprintf("check-%d.bin", n)
		// Not cut short by the end of the talking: that would leave it unknown
		// whether there is a file.
		where, code, err := upload(r.ctx, r.system.addresses[n%len(r.system.addresses)], a.user.Token, name, content)
		e := Event{Client: a.user.ID, Type: imclient.OK, Op: OpUpload, ClientID: int64(n), Text: where, Code: code}
		switch {
		case err != nil:
			e.Type, e.Reason = imclient.Info, err.Error()
		case where == "":
			e.Type = imclient.Fail
		default:
			sum := sha256.Sum256(content)
			e.Reason = hex.EncodeToString(sum[:])
		}
		r.log.add(&e)
		sleep(ctx, time.Second)
	}
}

// upload sends one file and returns its path, or the code of the refusal.
func upload(ctx context.Context, base, token, name string, content []byte) (where string, code int, err error) {
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, err := form.CreateFormFile("file", name)
	if err != nil {
		return "", 0, err
	}
	_, _ = part.Write(content) // to memory
	if err := form.Close(); err != nil {
		return "", 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/api/upload/file", &body)
	if err != nil {
		return "", 0, err
	}
	req.Header.Set("Content-Type", form.FormDataContentType())
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := uploadsClient.Do(req)
	if err != nil {
		return "", 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	var env struct {
		Code int `json:"code"`
		Data struct {
			URL string `json:"file_url"`
		} `json:"data"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&env); err != nil {
		return "", 0, err
	}
	if env.Code != http.StatusOK {
		return "", env.Code, nil
	}
	u, err := url.Parse(env.Data.URL)
	if err != nil || u.Path == "" {
		return "", 0, fmt.Errorf("check: an upload without an address: %q", env.Data.URL)
	}
	return u.EscapedPath(), env.Code, nil
}

// readUploads asks for every file that was accepted, and looks at all that is in
// the folder of an own cluster.
func (r *run) readUploads() error {
	patience := stumbles
	for e := range r.log.all() {
		if e.Op != OpUpload || e.Type != imclient.OK {
			continue
		}
		found := Event{Client: e.Client, Type: imclient.Fail, Op: OpFile, ClientID: e.ClientID, Text: e.Text}
		insist(r.ctx, &patience, func() bool {
			var err error
			if found.Reason, err = download(r.ctx, r.system.addresses[0]+e.Text); err != nil {
				found.Reason = err.Error()
				return false
			}
			found.Type = imclient.OK
			return true
		})
		r.log.add(&found)
	}
	if r.system.cluster == nil {
		return nil
	}
	dir := filepath.Join(r.system.stateDir, "data", "uploads")
	return filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		key, rest, _ := strings.Cut(entry.Name(), ".")
		growing := strings.HasSuffix(rest, partSuffix)
		if len(key) != 32 || strings.Trim(key, "0123456789abcdef") != "" || rest != "" && !growing {
			return nil // not content
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		e := Event{Type: imclient.OK, Op: OpFile, Text: entry.Name(), Seq: int64(imclient.Now() - time.Since(info.ModTime()))}
		if growing || info.Size() != uploadSize {
			e.Type, e.Reason = imclient.Fail, fmt.Sprintf("%d bytes of %d", info.Size(), uploadSize)
		}
		r.log.add(&e)
		return nil
	})
}

// partSuffix ends the name of a file that is not whole yet; it begins with the key.
const partSuffix = "tmp"

// download returns the checksum of what stands at target.
func download(ctx context.Context, target string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return "", err
	}
	resp, err := uploadsClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	sum := sha256.New()
	if _, err := io.Copy(sum, resp.Body); err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("HTTP %d", resp.StatusCode)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// judgeUploads: a file that was accepted is there as it was sent; of one that
// was refused, nothing is. Who is refused for want of space is told so, and nobody
// else is.
func (x *index) judgeUploads(b Bounds) Result {
	r := Result{ID: "I13", Name: "an uploaded file is there whole, and no part of one"}
	sums, refused := map[int64]string{}, 0
	accepted, unknown, strange := map[string]bool{}, 0, 0
	for i := range x.events {
		e := &x.events[i]
		switch {
		case e.Op == OpUpload && e.Type == imclient.OK:
			sums[e.ClientID] = e.Reason
			for part := range strings.SplitSeq(e.Text, "/") { // one of them is the key
				accepted[part] = true
			}
		case e.Op == OpUpload && e.Type == imclient.Info:
			unknown++
		case e.Op == OpUpload && e.Type == imclient.Fail:
			refused++
			switch full, only := x.uploadsFull(e.T); {
			case e.Code == http.StatusInsufficientStorage && !full:
				r.red("file %d was refused at %s for want of space, and there was some", e.ClientID, short(e.T))
			case e.Code == http.StatusInternalServerError && only && !x.starved(b):
				r.red("file %d was refused at %s, when there was no space, with code %d", e.ClientID, short(e.T), e.Code)
			}
		case e.Op == OpFile && e.Client == 0 && strings.HasSuffix(e.Text, "."+partSuffix):
			if at := time.Duration(e.Seq); !x.gatewayDied(at) {
				r.red("the part %s stays behind: %s, last written at %s, and no gateway died then", e.Text, e.Reason, short(at))
			}
		case e.Op == OpFile && e.Client == 0 && e.Type != imclient.OK:
			r.red("the file %s, which was never accepted, has %s", e.Text, e.Reason)
		case e.Op == OpFile && e.Client == 0:
			r.Checked++
			if !accepted[e.Text] {
				strange++
			}
		case e.Op == OpFile:
			r.Checked++
			if e.Type != imclient.OK || e.Reason != sums[e.ClientID] {
				r.red("file %s was accepted and is not there as it was sent: %s", e.Text, e.Reason)
			}
		}
	}
	if strange > unknown {
		r.red("%d files are there that nobody was told of; it is not known of %d uploads whether there is one", strange, unknown)
	}
	if r.Checked+refused == 0 {
		r.Skipped = "no file was sent"
	}
	return r
}

// gatewayDied reports whether a gateway ended while it could be storing what was
// last written at t. What is left of that is removed after an hour only.
func (x *index) gatewayDied(t time.Duration) bool {
	return slices.ContainsFunc(x.faults, func(f Window) bool {
		return strings.HasPrefix(f.Target, "gateway") &&
			slices.Contains([]string{Kill, KillAll, KillFlush, Down, Memory, Restart}, f.Kind) &&
			t <= satAdd(f.End, aftermath) && f.Begin <= t+callLimit
	})
}

// uploadsFull reports whether there was no space for uploads at t, and whether
// nothing else failed then. What is asked for as the space goes or comes may meet
// either.
func (x *index) uploadsFull(t time.Duration) (full, only bool) {
	for i := range x.faults {
		f := &x.faults[i]
		if f.Kind == DiskFull && f.Target == "uploads" && f.Begin <= t && t <= satAdd(f.End, aftermath) {
			full = true
			only = x.onlyFault(t, t) == f && f.Begin+time.Second <= t && t <= f.End
		}
	}
	return full, only
}
