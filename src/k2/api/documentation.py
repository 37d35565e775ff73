"""The page at /docs: lists the routes of the OpenAPI document and runs questions; needs nothing from elsewhere."""

from __future__ import annotations

from typing import Final

PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>K2 API</title><style>
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}
code,pre,input{font-family:ui-monospace,monospace}pre{background:#f4f4f4;padding:1rem;overflow:auto;max-height:30rem}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.2rem .6rem;border-bottom:1px solid #ddd;vertical-align:top}
input{width:100%;box-sizing:border-box;padding:.3rem}label{display:block;margin:.6rem 0}
</style></head><body><h1>K2 API</h1><p>The machine-readable form is <a href="/openapi.json">openapi.json</a>.</p>
<label>API key <input id="key" type="password" autocomplete="off"></label>
<label>Question <input id="path" value="/v1/symbols"></label><button id="ask">Ask</button><pre id="answer"></pre>
<div id="routes"></div><script>
const by=id=>document.getElementById(id);
by("ask").onclick=async()=>{const r=await fetch(by("path").value,{headers:{"X-API-Key":by("key").value}});
const t=await r.text();let s=t;try{s=JSON.stringify(JSON.parse(t),null,1)}catch(e){}by("answer").textContent=r.status+"\\n"+s.slice(0,20000)};
fetch("/openapi.json").then(r=>r.json()).then(d=>{for(const[p,ops]of Object.entries(d.paths))for(const[m,o]of Object.entries(ops)){
const h=document.createElement("h2");h.textContent=m.toUpperCase()+" "+p;const q=document.createElement("p");q.textContent=o.description||o.summary;
by("routes").append(h,q);if(!o.parameters)continue;const t=document.createElement("table");
for(const a of o.parameters){const r=t.insertRow();r.insertCell().textContent=a.name+(a.required?" (required)":"");
r.insertCell().textContent=a.description||a.schema?.description||""}by("routes").append(t)}});
</script></body></html>
"""
