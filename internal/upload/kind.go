package upload

import (
	"path"
	"strings"

	"github.com/gabriel-vasile/mimetype"
)

// shown are the media types that a browser shows without being able to run
// anything in them: pictures of pixels, sound, video. It is a list and not
// "image/*" because SVG is an image that holds scripts.
var shown = map[string]bool{
	"image/png": true, "image/jpeg": true, "image/gif": true, "image/webp": true, "image/bmp": true, "image/avif": true,
	"image/vnd.mozilla.apng": true, "image/apng": true, "image/x-icon": true, "image/heic": true,
	"audio/wav": true, "audio/mpeg": true, "audio/ogg": true, "audio/flac": true, "audio/aac": true, "audio/mp4": true,
	"audio/webm": true, "audio/x-m4a": true, "audio/amr": true, "audio/aiff": true, "audio/midi": true,
	"video/mp4": true, "video/webm": true, "video/ogg": true, "video/quicktime": true, "video/x-msvideo": true,
	"video/3gpp": true, "video/x-matroska": true, "video/mpeg": true, "video/x-m4v": true,
}

// byExtension are the types believed by name when the bytes say nothing: sound
// cut off at its start is still sound to the person who recorded it. As sniffing
// is forbidden to browsers, nothing can run under these.
var byExtension = map[string]string{
	".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp",
	".apng": "image/apng", ".bmp": "image/bmp",
	".wav": "audio/wav", ".mp3": "audio/mpeg", ".ogg": "audio/ogg", ".m4a": "audio/mp4", ".aac": "audio/aac", ".flac": "audio/flac",
	".oga": "audio/ogg", ".opus": "audio/ogg", ".mp4": "video/mp4", ".webm": "video/webm", ".mov": "video/quicktime", ".ogv": "video/ogg",
}

// mediaType decides what a file is: by its bytes, by its name only when they do
// not tell.
func mediaType(kind *mimetype.MIME, name string) string {
	switch {
	case kind.Is("audio/x-wav"), kind.Is("audio/wav"), kind.Is("audio/wave"):
		return "audio/wav"
	case kind.Is("text/plain"), kind.Is("application/octet-stream"), kind.Is("application/ogg"): // the last holds sound or video
		if t, ok := byExtension[path.Ext(name)]; ok {
			return t
		}
	}
	return kind.String()
}

// inline reports whether a browser may show a file of this type in place.
func inline(mediaType string) bool {
	t, _, _ := strings.Cut(mediaType, ";")
	return shown[strings.TrimSpace(t)]
}
